"""就医地目录: what is covered at the care place, at what price, and in which institutions."""

"""参保地政策: versioned policy documents of the site's areas, and what they pay."""

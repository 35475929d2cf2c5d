"""Filing 备案: on what basis a visit outside the pooling area is entitled."""

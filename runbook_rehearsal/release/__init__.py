"""The release as it is published: signed artifacts, and the authority that vouches for them."""

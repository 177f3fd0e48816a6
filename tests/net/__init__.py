"""The net: what must stay true whatever is rebuilt. It sees what a notebook's reader sees."""

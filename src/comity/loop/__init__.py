"""The loop, the site and the selections."""

"""How good generated images are: features of a network, and what is computed of them."""

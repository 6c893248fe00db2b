"""Writing an image to a card, on the machine of whoever sets the node up."""

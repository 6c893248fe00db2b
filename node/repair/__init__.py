"""``pinnace repair``: what is wrong with the data of this machine, and mending it."""

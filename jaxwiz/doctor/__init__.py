"""`jaxwiz doctor`: is every host of a pod sound, and alike? One line each, and the odd one out by name."""

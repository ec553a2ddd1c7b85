"""`jaxwiz plan`: what a step will need and take on TPUs that are not here, read off its compiled program."""

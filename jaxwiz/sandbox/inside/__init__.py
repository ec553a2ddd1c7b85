"""What runs inside the sandbox's own processes: server, candidate and checker, and the layers that confine them.

Standard library only, and nothing from the rest of jaxwiz: the server imports these in a bare interpreter, and forks.
"""

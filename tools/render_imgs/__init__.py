"""The renderer of ``imgs/``: every picture is a pure function of its name."""

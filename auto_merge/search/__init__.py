"""The loop ask -> decode -> merge -> evaluate -> tell, its worker, and what happens at its end."""

"""Guardrails: the rules that every environment keeps, and waivers from them."""

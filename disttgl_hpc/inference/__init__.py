"""A trained run put to use: embed, score, recommend, update, classify."""

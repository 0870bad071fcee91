"""How good a model is: strategies and recipes, each with several seeds, beside what they cost."""

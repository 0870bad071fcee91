"""``wardround site``: what a hospital does with images and models beside a federation."""

"""Rules of single tasks: detection, a number or a time instead of classes, pretraining."""

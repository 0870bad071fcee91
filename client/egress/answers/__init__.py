"""What a site answers to each kind of question: agreed on, computed, checked and written down."""

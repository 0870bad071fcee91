"""Pages that live: served on this machine, sent anew as things happen, with no script but ours."""

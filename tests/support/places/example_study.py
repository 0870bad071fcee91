"""A study that names everything that the example package registers."""

EXAMPLE_STUDY = """
[study]
name = "discs"
task = "classification"

[data]
channels = ["image"]
classes = ["none", "disc"]
size = [16, 16]
intensity = "xray"
augmentation = "example-ward:speckle"

[model]
network = "example-ward:small-classifier"
arguments = { width = 4 }

[training]
loss = "example-ward:soft-label"
batch_size = 8
local_steps = 5
learning_rate = 0.01

[federation]
strategy = "example-ward:clipped-mean"
rounds = 2

[evaluation]
metric = "example-ward:kappa"

[simulation]
data = "example-ward:discs"
sites = 2
compare = false
"""

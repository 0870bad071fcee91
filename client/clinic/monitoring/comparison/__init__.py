"""The tests of a period: samples held against each other, and what all of them together say."""

"""The operators' API as protobuf: ``operators.proto``, and the code that protoc makes of it.

``make proto`` writes ``operators_pb2.py`` and its types, ``operators_pb2.pyi``. Only
``operators/wire.py`` imports them.
"""

"""protobuf and gRPC code made from the .proto files beside this folder; see README.md."""

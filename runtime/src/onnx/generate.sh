#!/bin/sh
# Regenerates generated/onnx_pb.ts from onnx.proto (taken unchanged from the `onnx` 1.23.1 release, Apache-2.0).
# Needs protoc (Debian: protobuf-compiler) once; the generated file is committed. Run it from the repository root.
set -eu
protoc -I runtime/src/onnx \
  --plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es \
  --es_out=runtime/src/onnx/generated --es_opt=target=ts,import_extension=js \
  onnx.proto

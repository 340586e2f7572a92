"""Compares this project's messages with TensorFlow's: numbers, names, types, labels, oneofs, enums.

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import importlib
import os
import unittest

from google.protobuf import descriptor_pb2

_DESCRIPTORS = os.path.join(os.environ["FERRY_BIN"], "proto/protos-descriptor-set.proto.bin")

_TF_MODULES = (
    *("tensorflow.core.framework." + name for name in (
        "attr_value_pb2 full_type_pb2 function_pb2 graph_pb2 graph_debug_info_pb2 node_def_pb2 "
        "op_def_pb2 resource_handle_pb2 summary_pb2 tensor_pb2 tensor_shape_pb2 tensor_slice_pb2 "
        "types_pb2 variable_pb2 versions_pb2").split()),
    *("tensorflow.core.protobuf." + name for name in (
        "control_flow_pb2 meta_graph_pb2 saved_model_pb2 saver_pb2 tensor_bundle_pb2 "
        "trackable_object_graph_pb2").split()),
    "tensorflow.core.util.event_pb2",
    "tensorflow.core.util.saved_tensor_slice_pb2",
    "tensorflow.python.training.checkpoint_state_pb2",
)

# Messages that are kept as opaque bytes, which is the same on the wire.
_OPAQUE = {"MetaGraphDef.object_graph_def", "TensorInfo.CompositeTensor.type_spec",
           "TrackableObjectGraph.TrackableObject.has_checkpoint_values"}

Field = descriptor_pb2.FieldDescriptorProto


def _collect(file, messages, enums):
    """Adds a FileDescriptorProto's messages and enums by their names within the package."""

    def add_message(prefix, message):
        name = prefix + message.name
        messages[name] = message
        for nested in message.nested_type:
            add_message(name + ".", nested)
        for enum in message.enum_type:
            enums[name + "." + enum.name] = enum

    for message in file.message_type:
        add_message("", message)
    for enum in file.enum_type:
        enums[enum.name] = enum


def _describe(message, package):
    """A message's fields as {name: what must be equal}, independent of the package's name."""
    fields = {}
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        type_name = field.type_name
        if type_name.startswith(package):
            type_name = type_name[len(package):]
        fields[field.name] = {
            "number": field.number,
            "label": Field.Label.Name(field.label),
            "type": Field.Type.Name(field.type),
            "type_name": type_name,
            "oneof": oneof,
            "packed": field.options.packed if field.options.HasField("packed") else None,
        }
    return fields


class ProtoTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        ours = descriptor_pb2.FileDescriptorSet()
        with open(_DESCRIPTORS, "rb") as file:
            ours.ParseFromString(file.read())
        cls.messages, cls.enums = {}, {}
        for file in ours.file:
            _collect(file, cls.messages, cls.enums)

        cls.tf_messages, cls.tf_enums = {}, {}
        files = [importlib.import_module(name).DESCRIPTOR for name in _TF_MODULES]
        while files:
            file = files.pop()
            if file.package != "tensorflow":
                continue
            proto = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(proto)
            _collect(proto, cls.tf_messages, cls.tf_enums)
            files.extend(file.dependencies)

    def test_messages(self):
        self.maxDiff = None
        self.assertIn("GraphDef", self.messages)
        for name, message in self.messages.items():
            with self.subTest(message=name):
                self.assertIn(name, self.tf_messages)
                ours = _describe(message, ".ferry.proto.")
                theirs = _describe(self.tf_messages[name], ".tensorflow.")
                for field in list(ours):
                    if name + "." + field in _OPAQUE:
                        self.assertEqual(ours[field]["type"], "TYPE_BYTES")
                        self.assertEqual(theirs[field]["type"], "TYPE_MESSAGE")
                        self.assertEqual(ours.pop(field)["number"], theirs.pop(field)["number"])
                self.assertEqual(ours, theirs)
                self.assertEqual(message.options.map_entry,
                                 self.tf_messages[name].options.map_entry)

    def test_enums(self):
        self.assertIn("DataType", self.enums)
        for name, enum in self.enums.items():
            with self.subTest(enum=name):
                self.assertIn(name, self.tf_enums)
                self.assertEqual({v.name: v.number for v in enum.value},
                                 {v.name: v.number for v in self.tf_enums[name].value})


if __name__ == "__main__":
    unittest.main()

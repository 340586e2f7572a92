"""The models that don't run yet, with the ops that they lack: graph_models_test.py wants each to fail
with an error that names these, and to be taken from here when it runs.
"""

# Loops of Enter, Exit and NextIteration.
_LOOP = ["INVALID_ARGUMENT", "the graph has a cycle"]
_EXIT = ["INVALID_ARGUMENT", "refers to a tensor that does not exist"]


def _without(*ops):
    return ["UNIMPLEMENTED", *[f"op {op} is not registered" for op in ops]]


NOT_YET = {
    "train": {
        "cases": _without("StatelessCase"),
        "cases_v2": _without("StatelessCase", "StatelessIf"),
        "characters": _LOOP,
        "characters_resource": _LOOP,
        "conditional_v2": _without("If", "StatelessIf"),
        "fixed_point": _LOOP,
        "fixed_point_v2": _without("EmptyTensorList", "StatelessWhile"),
        "functions_v2": _without("PartitionedCall", "StatefulPartitionedCall"),
        "gru": _LOOP,
        "keras_lstm": _LOOP,
        "loop_nested": _LOOP,
        "loop_nested_v2": _without("EmptyTensorList", "While"),
        "lstm": _LOOP,
        "lstm_lengths": _LOOP,
        "lstm_lengths_resource": _LOOP,
        "lstm_v2": _without("EmptyTensorList", "StatelessWhile", "TensorListFromTensor",
                            "TensorListReserve", "TensorListStack"),
        "rate_piecewise_constant_v2": _without("If", "StatelessIf"),
        "rnn_bidirectional": _LOOP,
        "rnn_stacked": _LOOP,
        "rnn_while": _LOOP,
        "rnn_while_resource": _LOOP,
        "rnn_while_v2": _without("EmptyTensorList", "StatelessWhile", "TensorListFromTensor",
                                 "TensorListReserve", "TensorListStack", "While"),
    },
    "saved_model": {
        "cases_v2": _without("StatelessCase"),
        "conditional_v2": _without("If"),
        "fixed_point_v2": _without("EmptyTensorList", "StatelessWhile"),
        "functions_v2": _without("StatefulPartitionedCall"),
        "keras_lstm": _LOOP,
        "lstm_lengths": _LOOP,
        "lstm_v2": _without("EmptyTensorList", "StatelessWhile", "TensorListFromTensor",
                            "TensorListReserve", "TensorListStack"),
        "module": _without("StatefulPartitionedCall"),
        "module_convnet": _without("StatefulPartitionedCall"),
        "rnn_while": _LOOP,
        "rnn_while_v2": _without("EmptyTensorList", "TensorListFromTensor", "TensorListReserve",
                                 "TensorListStack", "While"),
    },
    "frozen": {
        "characters": _EXIT,
        "conditional_v2": _without("If"),
        "fixed_point": _EXIT,
        "fixed_point_v2": _without("EmptyTensorList", "StatelessWhile"),
        "functions_v2": _without("StatefulPartitionedCall"),
        "keras_lstm": _LOOP,
        "loop_nested": _LOOP,
        "lstm": _LOOP,
        "lstm_lengths": _LOOP,
        "lstm_v2": _without("EmptyTensorList", "StatelessWhile", "TensorListFromTensor",
                            "TensorListReserve", "TensorListStack"),
        "rnn_while": _LOOP,
        "rnn_while_resource": _LOOP,
        "rnn_while_v2": _without("EmptyTensorList", "TensorListFromTensor", "TensorListReserve",
                                 "TensorListStack", "While"),
    },
}

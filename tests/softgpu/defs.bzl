"""cuda_test: a test of CUDA code that runs on the software GPU where there is no real one."""

load("//tools/cuda:cuda.bzl", "if_cuda")

# The orders in which streams may run that tests are to hold in.
ALL_ORDERS = [
    "lazy",
    "eager",
    "shuffle:1",
    "shuffle:2",
    "shuffle:3",
]

def cuda_test(
        name,
        srcs,
        deps = [],
        orders = ["lazy"],
        long_orders = [],
        settings = {},
        size = "medium",
        tags = [],
        **kwargs):
    """A GoogleTest of CUDA code, once for each order in which streams may run.

    It runs by tools/softgpu: on a real GPU where one answers (then the orders are all the same), else
    on the software GPU. Where CUDA code isn't built it is incompatible: `//...` skips it.

    Args:
      name: the test's name; further orders append theirs: NAME_eager, NAME_shuffle_1.
      srcs: C++ sources.
      deps: libraries, cuda_library targets among them; GoogleTest's main is added.
      orders: of lazy, eager, shuffle:SEED. The first one's test is NAME.
      long_orders: more orders, whose tests have the tag "long" and look for races too.
      settings: what the environment says to the software GPU (see settings.h), without the prefix:
        {"CHECKS": "all", "DEVICES": "2"}. "CHECKS" is "init" by default.
      size: as for cc_test.
      tags: as for cc_test.
      **kwargs: the attributes that cc_binary has, data among them.
    """
    data = kwargs.pop("data", [])
    compatible = if_cuda([], ["//tools/cuda:missing_toolkit"])
    native.cc_binary(
        name = name + "_program",
        testonly = True,
        srcs = srcs,
        tags = tags,
        target_compatible_with = compatible,
        deps = deps + ["@system//:gtest_main"],
        **kwargs
    )
    for order in orders + [o for o in long_orders if o not in orders]:
        is_long = order not in orders
        used = dict(settings)
        if is_long:
            used.setdefault("CHECKS", "init,race")
        suffix = "" if order == orders[0] else "_" + order.replace(":", "_")
        native.sh_test(
            name = name + suffix,
            size = size,
            srcs = ["//tools:softgpu"],
            args = ["--order=" + order] +
                   ["--%s=%s" % (key.lower(), value) for key, value in used.items()] +
                   ["$(rootpath :%s_program)" % name],
            data = data + [
                ":%s_program" % name,
                "//tests/softgpu:libraries",
            ],
            tags = tags + (["long"] if is_long else []),
            target_compatible_with = compatible,
        )

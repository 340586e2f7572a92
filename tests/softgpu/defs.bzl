"""cuda_test: a test of CUDA code that runs on the software GPU where there is no real one."""

load("//tools/cuda:cuda.bzl", "if_cuda")

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
      long_orders: further ones, whose tests have the tag "long".
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
    for order in orders + long_orders:
        suffix = "" if order == orders[0] else "_" + order.replace(":", "_")
        native.sh_test(
            name = name + suffix,
            size = size,
            srcs = ["//tools:softgpu"],
            args = ["--order=" + order] +
                   ["--%s=%s" % (key.lower(), value) for key, value in settings.items()] +
                   ["$(rootpath :%s_program)" % name],
            data = data + [
                ":%s_program" % name,
                "//tests/softgpu:libraries",
            ],
            tags = tags + (["long"] if order in long_orders else []),
            target_compatible_with = compatible,
        )

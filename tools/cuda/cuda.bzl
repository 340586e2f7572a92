"""cuda_library compiles .cu files with nvcc; if_cuda chooses by whether CUDA code is built."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@local_cuda//:toolkit.bzl", "CUDA_HOME", "CUDA_VERSION")

# What --config=cuda-all builds for (.bazelrc says it too).
ALL_ARCHS = ["75", "80", "86", "89", "90", "100", "120"]

_FlagInfo = provider(fields = ["value"])

def _flag_impl(ctx):
    return [_FlagInfo(value = ctx.build_setting_value)]

bool_flag = rule(implementation = _flag_impl, build_setting = config.bool(flag = True))
string_flag = rule(implementation = _flag_impl, build_setting = config.string(flag = True))

def if_cuda(then, otherwise = []):
    """`then` where CUDA code is built, `otherwise` elsewhere."""
    return select({
        "//tools/cuda:enabled": then,
        "//conditions:default": otherwise,
    })

def _host_flags(ctx):
    # The flags that change the host code's layout or instrumentation must be the C++ compiler's
    # own; its warnings are not for nvcc's generated code.
    flags = ctx.fragments.cpp.copts + ctx.fragments.cpp.cxxopts
    return ["-fPIC"] + [f for f in flags if f.startswith("-f") or f.startswith("-m")]

def _nvcc_arguments(ctx, compiler, context):
    args = ctx.actions.args()
    args.add_all(["-std=c++17", "--cudart=shared", "-ccbin", compiler, "-I."])
    archs = ctx.attr.archs or ctx.attr._archs[_FlagInfo].value.split(",")
    args.add_all(["-gencode=arch=compute_%s,code=sm_%s" % (a, a) for a in archs])
    args.add("-gencode=arch=compute_%s,code=compute_%s" % (archs[0], archs[0]))
    args.add("--threads=0" if len(archs) > 1 else "--threads=1")
    if ctx.var["COMPILATION_MODE"] == "dbg":
        args.add_all(["-O0", "-g", "-lineinfo"])
    else:
        args.add_all(["-O3", "-DNDEBUG"])
    args.add_all(_host_flags(ctx), before_each = "-Xcompiler")
    args.add_all(ctx.attr.nvccopts)
    args.add_all(context.defines, format_each = "-D%s")
    args.add_all(context.quote_includes, before_each = "-I")
    args.add_all(context.includes, before_each = "-I")
    args.add_all(context.system_includes, before_each = "-isystem")
    return args

def _cuda_library_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    deps = [dep[CcInfo] for dep in ctx.attr.deps]
    own = CcInfo(compilation_context = cc_common.create_compilation_context(
        headers = depset(ctx.files.hdrs),
        quote_includes = depset(["."]),
    ))
    info = cc_common.merge_cc_infos(direct_cc_infos = [own], cc_infos = deps)
    context = info.compilation_context
    args = _nvcc_arguments(ctx, toolchain.compiler_executable, context)

    objects = []
    for source in ctx.files.srcs:
        out = ctx.actions.declare_file("_objs/%s/%s.o" % (ctx.label.name, source.basename))
        ctx.actions.run(
            executable = CUDA_HOME + "/bin/nvcc",
            arguments = [args, "-c", source.path, "-o", out.path],
            inputs = depset([source], transitive = [context.headers, toolchain.all_files]),
            outputs = [out],
            # The version is no input of nvcc; it makes another toolkit compile everything again.
            env = {"PATH": CUDA_HOME + "/bin:/usr/bin:/bin", "CUDA_VERSION": CUDA_VERSION},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s with nvcc" % source.short_path,
        )
        objects.append(out)

    linking_context, outputs = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        feature_configuration = cc_common.configure_features(
            ctx = ctx,
            cc_toolchain = toolchain,
            requested_features = ctx.features,
            unsupported_features = ctx.disabled_features,
        ),
        cc_toolchain = toolchain,
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        linking_contexts = [info.linking_context],
        alwayslink = ctx.attr.alwayslink,
        disallow_dynamic_library = True,
    )
    library = outputs.library_to_link
    archives = [f for f in [library.static_library, library.pic_static_library] if f]
    return [
        DefaultInfo(files = depset(archives)),
        CcInfo(compilation_context = context, linking_context = linking_context),
    ]

_cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "nvccopts": attr.string_list(),
        "alwayslink": attr.bool(),
        "archs": attr.string_list(),
        "_archs": attr.label(default = "//tools/cuda:archs"),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, deps = [], **kwargs):
    """Like cc_library, for .cu files.

    Where CUDA code isn't built the target is incompatible: `//...` skips it, and cc targets depend
    on it through if_cuda alone.

    Args:
      name: the target's name.
      deps: cc_library and cuda_library targets; cudart is added.
      **kwargs: srcs, hdrs, nvccopts, alwayslink, archs (in place of //tools/cuda:archs) and the
        attributes that every rule has.
    """
    _cuda_library(
        name = name,
        deps = deps + ["@local_cuda//:cudart"],
        target_compatible_with = if_cuda([], ["//tools/cuda:missing_toolkit"]),
        **kwargs
    )

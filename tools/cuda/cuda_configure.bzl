"""Finds the CUDA toolkit: $CUDA_HOME, /usr/local/cuda, or the nvcc on PATH. FERRY_CUDA=0 hides it.

The repository has the targets :cudart and :cublas, which are empty where there is no toolkit, and
toolkit.bzl with CUDA_HOME ("" if there is none) and CUDA_VERSION.
"""

_LIBRARIES = ["cudart", "cublas"]

_HEADERS = """
cc_library(
    name = "headers",
    hdrs = glob(["include/**"], exclude = ["include/cccl/**"]),
    includes = ["include"],
)
"""

_LIBRARY = """
cc_library(
    name = "{name}",
    linkopts = {linkopts},
    deps = {deps},
)
"""

def _find_toolkit(ctx):
    if ctx.os.environ.get("FERRY_CUDA") == "0":
        return None
    for home in [ctx.os.environ.get("CUDA_HOME"), "/usr/local/cuda"]:
        if home and ctx.path(home + "/bin/nvcc").exists:
            return home
    nvcc = ctx.which("nvcc")
    return str(nvcc.realpath.dirname.dirname) if nvcc else None

def _library_folder(ctx, home):
    for name in ["lib64", "lib", "lib/x86_64-linux-gnu"]:
        if ctx.path("%s/%s/libcudart.so" % (home, name)).exists:
            return "%s/%s" % (home, name)
    fail("the CUDA toolkit in %s has no libcudart.so; FERRY_CUDA=0 builds without it" % home)

def _cuda_configure_impl(ctx):
    home = _find_toolkit(ctx)
    build = ['package(default_visibility = ["//visibility:public"])\n']
    version = ""
    if home:
        result = ctx.execute([home + "/bin/nvcc", "--version"])
        if result.return_code:
            fail("%s/bin/nvcc --version: %s" % (home, result.stderr))
        version = result.stdout.strip().split("\n")[-1]
        folder = _library_folder(ctx, home)
        ctx.symlink(home + "/include", "include")
        build.append(_HEADERS)
    for name in _LIBRARIES:
        linkopts = ["-L" + folder, "-Wl,--enable-new-dtags,-rpath," + folder, "-l" + name] if home else []
        build.append(_LIBRARY.format(
            name = name,
            linkopts = linkopts,
            deps = [":headers"] if home else [],
        ))
    ctx.file("BUILD", "".join(build))
    ctx.file("toolkit.bzl", "CUDA_HOME = %r\nCUDA_VERSION = %r\n" % (home or "", version))

cuda_configure = repository_rule(
    implementation = _cuda_configure_impl,
    environ = ["CUDA_HOME", "FERRY_CUDA", "PATH"],
    local = True,
    configure = True,
)

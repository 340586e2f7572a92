"""The external repositories: the system's libraries, stand-ins for rules, the CUDA toolkit."""

load("//tools/cuda:cuda_configure.bzl", "cuda_configure")

# Repositories that Bazel asks for by itself; the stand-ins give it the native rules.
_STUBS = ["rules_cc", "rules_java", "remote_coverage_tools"]

def ferry_workspace():
    """Declares every external repository that the build uses."""
    for stub in _STUBS:
        native.local_repository(name = stub, path = "third_party/stubs/" + stub)
    native.new_local_repository(
        name = "com_google_protobuf",
        path = "/usr",
        build_file = "//third_party:protobuf.BUILD",
    )
    native.new_local_repository(
        name = "system",
        path = "/usr",
        build_file = "//third_party:system.BUILD",
    )
    cuda_configure(name = "local_cuda")

"""Writes op_cases/kernel_dtypes.txt: which dtypes TensorFlow's CPU kernels take.

A line a kernel that is registered for the CPU: the op, then each type attribute that the kernel
constrains as name=dtype,dtype..., separated by tabs; * where nothing is constrained. Kernels of one
op that differ in a single attribute share a line. Run with the Python of a virtual environment that
has tensorflow-cpu 2.21: python make_kernel_dtypes.py
"""

import os

from case_lib import HERE

from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels

OPS = """
Abs Add AddN AddV2 All Any ApplyAdadelta ApplyAdagrad ApplyAdam ApplyCenteredRMSProp ApplyFtrl
ApplyGradientDescent ApplyMomentum ApplyRMSProp ArgMax ArgMin Assign AssignAdd AssignSub AvgPool
AvgPoolGrad BatchMatMul BatchMatMulV2 BiasAdd BiasAddGrad BroadcastGradientArgs BroadcastTo Cast
Ceil ClipByValue Concat ConcatOffset ConcatV2 Const Conv2D Conv2DBackpropFilter Conv2DBackpropInput
Cos Div DivNoNan DynamicPartition DynamicStitch Elu EluGrad Enter Equal Erf Exit Exp ExpandDims
Expm1 Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormGrad FusedBatchNormGradV2
FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual
Identity IdentityN Inv InvGrad InvertPermutation IsFinite IsInf IsNan IsVariableInitialized L2Loss
LRN LRNGrad LeakyRelu LeakyReluGrad Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd
LogicalNot LogicalOr LoopCond MatMul Max MaxPool MaxPoolGrad MaxPoolGradGrad MaxPoolGradV2 MaxPoolV2
Maximum Mean Merge Min Minimum Mod Mul MulNoNan Neg NextIteration NoOp NotEqual OneHot OnesLike Pack
Pad PadV2 Placeholder PlaceholderWithDefault Pow PreventGradient Prod RandomStandardNormal
RandomUniform RandomUniformInt Range Rank RealDiv Reciprocal ReciprocalGrad RefEnter RefExit
RefIdentity RefMerge RefNextIteration RefSwitch Relu Relu6 Relu6Grad ReluGrad Reshape RestoreV2 Rint
Round Rsqrt RsqrtGrad SaveV2 Select SelectV2 Selu SeluGrad Shape ShapeN Sigmoid SigmoidGrad Sign Sin
Size Slice Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign SoftsignGrad
SparseSoftmaxCrossEntropyWithLogits Split SplitV Sqrt SqrtGrad Square SquaredDifference Squeeze
StopGradient StridedSlice StridedSliceAssign StridedSliceGrad Sub Sum Switch Tanh TanhGrad Tile
Transpose TruncateDiv TruncatedNormal Unique Unpack UnsortedSegmentSum VariableV2 Where ZerosLike
ApplyAdaMax ApplyAdagradDA ApplyAdagradV2 ApplyAddSign ApplyFtrlV2 ApplyPowerSign
ApplyProximalAdagrad ApplyProximalGradientDescent BatchToSpace BatchToSpaceND CheckNumerics
DepthToSpace Print PrintV2 ResourceApplyAdamWithAmsgrad ResourceApplyKerasMomentum
ResourceScatterAdd ResourceScatterDiv ResourceScatterMax ResourceScatterMin ResourceScatterMul
ResourceScatterNdAdd ResourceScatterNdMax ResourceScatterNdUpdate ResourceSparseApplyKerasMomentum
ReverseSequence ScatterAdd ScatterDiv ScatterMax ScatterMin ScatterMul ScatterNd ScatterNdAdd
ScatterNdMax ScatterNdMin ScatterNdNonAliasingAdd ScatterNdSub ScatterNdUpdate ScatterSub
ScatterUpdate SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum SpaceToBatch SpaceToBatchND
SpaceToDepth SparseApplyAdadelta SparseApplyAdagrad SparseApplyAdagradDA SparseApplyAdagradV2
SparseApplyCenteredRMSProp SparseApplyFtrl SparseApplyFtrlV2 SparseApplyMomentum
SparseApplyProximalAdagrad SparseApplyProximalGradientDescent SparseApplyRMSProp SparseSegmentMean
SparseSegmentMeanGrad SparseSegmentSqrtN SparseSegmentSqrtNGrad SparseSegmentSum
SparseSegmentSumGrad TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub
TensorScatterUpdate UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
""".split()


def dtype(enum):
    return types_pb2.DataType.Name(enum)[3:].lower()


def merge(constraints):
    """Joins those that agree in all attributes but one."""
    merged = []
    for c in constraints:
        for m in merged:
            differ = [a for a in c if sorted(c[a]) != sorted(m.get(a, []))]
            if set(m) == set(c) and len(differ) <= 1:
                for a in differ:
                    m[a] = sorted(set(m[a] + c[a]))
                break
        else:
            merged.append(dict(c))
    return merged


def main():
    lines = []
    for op in OPS:
        seen = []
        for k in kernels.get_registered_kernels_for_op(op).kernel:
            if k.device_type not in ("CPU", "DEFAULT"):
                continue
            c = {
                a.name: [dtype(t) for t in a.allowed_values.list.type
                        ] for a in k.constraint if a.allowed_values.list.type
            }
            seen.append(c)
        assert seen, op
        if all(not c for c in seen):
            lines.append(op + "\t*")
            continue
        merged = merge(merge(seen))
        for m in sorted(merged, key=str):
            lines.append(op + "\t" +
                         "\t".join("%s=%s" % (a, ",".join(sorted(m[a]))) for a in sorted(m)))
    with open(os.path.join(HERE, "op_cases", "kernel_dtypes.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

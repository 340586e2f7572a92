"""Networks of convolutions, for images NHWC."""

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.training import moving_averages

from .model import (OPTIMIZERS, Ends, biases, classification_loss, dense, images_batch, register,
                    weights)


def _placeholders(size=12, channels=1):
    return (tf.placeholder(tf.float32, [None, size, size, channels], name="x"),
            tf.placeholder(tf.int64, [None], name="y"))


def _conv(x, channels, size, scope, stride=1, padding="SAME"):
    with tf.variable_scope(scope):
        filters = weights("filters", [size, size, x.shape[-1], channels])
        h = tf.nn.conv2d(x, filters, strides=[1, stride, stride, 1], padding=padding)
        return tf.nn.bias_add(h, biases("biases", [channels]))


def _flatten(x):
    return tf.reshape(x, [-1, int(np.prod(x.shape.as_list()[1:]))])


def _lenet(optimizer):
    def build():
        x, y = _placeholders()
        h = tf.nn.relu(_conv(x, 4, 5, "conv1"))
        h = tf.nn.max_pool(h, [1, 2, 2, 1], [1, 2, 2, 1], "SAME", name="pool1")
        h = tf.nn.relu(_conv(h, 8, 3, "conv2", padding="VALID"))
        h = tf.nn.max_pool(h, [1, 2, 2, 1], [1, 2, 2, 1], "VALID", name="pool2")
        h = dense(_flatten(h), 16, "fc1", tf.nn.relu)
        logits = dense(h, 4, "fc2")
        loss = classification_loss(logits, y)
        accuracy = tf.reduce_mean(tf.to_float(tf.equal(tf.argmax(logits, 1), y)), name="accuracy")
        return Ends([logits, accuracy], loss, OPTIMIZERS[optimizer]().minimize(loss))

    return build


register("lenet", _lenet("gradient_descent"), images_batch)
register("lenet_resource", _lenet("adam"), images_batch, resource=True)


def _alexnet():
    """Strides, local response normalisation, explicit padding, dilation, means."""
    x, y = _placeholders(channels=3)
    h = tf.nn.relu(_conv(x, 6, 3, "conv1", stride=2))
    h = tf.nn.lrn(h, depth_radius=2, bias=1.0, alpha=0.01, beta=0.75)
    h = tf.nn.avg_pool(h, [1, 3, 3, 1], [1, 1, 1, 1], "SAME")
    h = tf.nn.relu(_conv(h, 6, 3, "conv2", padding=[[0, 0], [1, 2], [2, 1], [0, 0]]))
    h = tf.nn.atrous_conv2d(h, weights("atrous", [2, 2, 6, 6]), rate=2, padding="SAME")
    h = tf.reduce_mean(tf.nn.elu(h), [1, 2])
    logits = dense(h, 4, "out")
    loss = classification_loss(logits, y)
    return Ends([logits], loss, tf.train.MomentumOptimizer(0.05, 0.9).minimize(loss))


register("alexnet", _alexnet, lambda step: images_batch(step, channels=3))


def _fused_batch_norm(x, training, scope="bn"):
    """`training`: a bool. Its averages move by the ops of the collection UPDATE_OPS."""
    with tf.variable_scope(scope):
        shape = [x.shape[-1]]
        gamma, beta = biases("gamma", shape, 1.0), biases("beta", shape)
        moving_mean = tf.get_variable("moving_mean", shape, initializer=tf.zeros_initializer(),
                                      trainable=False)
        moving_variance = tf.get_variable("moving_variance", shape,
                                          initializer=tf.ones_initializer(), trainable=False)
        if not training:
            return tf.nn.fused_batch_norm(x, gamma, beta, moving_mean, moving_variance,
                                          epsilon=1e-3, is_training=False)[0]
        out, mean, variance = tf.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3)
        for average, value in (moving_mean, mean), (moving_variance, variance):
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, moving_averages.assign_moving_average(
                average, value, 0.9, zero_debias=False))
        return out


def _residual(x, channels, stride, normalize, scope):
    with tf.variable_scope(scope):
        h = tf.nn.relu(normalize(_conv(x, channels, 3, "conv1", stride), "bn1"))
        h = normalize(_conv(h, channels, 3, "conv2"), "bn2")
        if stride != 1 or x.shape[-1] != channels:
            x = _conv(x, channels, 1, "shortcut", stride)
        return tf.nn.relu(h + x)


def _resnet_logits(x, normalize):
    with tf.variable_scope("resnet", reuse=tf.AUTO_REUSE):
        h = tf.nn.relu(normalize(_conv(x, 4, 3, "conv0"), "bn0"))
        h = tf.nn.max_pool(h, [1, 3, 3, 1], [1, 2, 2, 1], "SAME")
        h = _residual(h, 4, 1, normalize, "block1")
        h = _residual(h, 8, 2, normalize, "block2")
        return dense(tf.reduce_mean(h, [1, 2]), 4, "out")


def _train_with_updates(loss, optimizer):
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        return optimizer.minimize(loss, tf.train.get_or_create_global_step())


def _resnet():
    """One tower to train and one to use."""
    x, y = _placeholders(channels=3)
    trained = _resnet_logits(x, lambda h, scope: _fused_batch_norm(h, True, scope))
    logits = _resnet_logits(x, lambda h, scope: _fused_batch_norm(h, False, scope))
    loss = classification_loss(trained, y)
    decay = tf.add_n([tf.nn.l2_loss(v) for v in tf.trainable_variables() if "filters" in v.name])
    loss = tf.add(loss, 1e-3 * decay, name="total_loss")
    train = _train_with_updates(loss, tf.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True))
    return Ends([logits, trained], loss, train)


register("resnet", _resnet, lambda step: images_batch(step, channels=3))
register("resnet_resource", _resnet, lambda step: images_batch(step, channels=3), resource=True)


def _resnet_placeholder():
    """One tower, whose normalisations a placeholder switches."""
    x, y = _placeholders(channels=3)
    training = tf.placeholder_with_default(False, [], name="training")

    def normalize(h, scope):
        with tf.variable_scope(scope):
            shape = [h.shape[-1]]
            gamma, beta = biases("gamma", shape, 1.0), biases("beta", shape)
            moving_mean = tf.get_variable("moving_mean", shape, trainable=False,
                                          initializer=tf.zeros_initializer())
            moving_variance = tf.get_variable("moving_variance", shape, trainable=False,
                                              initializer=tf.ones_initializer())
            out, mean, variance = tf.cond(
                training, lambda: tf.nn.fused_batch_norm(h, gamma, beta),
                lambda: tf.nn.fused_batch_norm(h, gamma, beta, moving_mean, moving_variance,
                                               is_training=False))
            momentum = tf.where(training, 0.9, 1.0)
            for average, value in (moving_mean, mean), (moving_variance, variance):
                update = tf.assign_sub(average, (average - value) * (1 - momentum))
                tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
            return out

    logits = _resnet_logits(x, normalize)
    loss = classification_loss(logits, y)
    return Ends([logits], loss, _train_with_updates(loss, tf.train.GradientDescentOptimizer(0.1)))


def _training_images_batch(step):
    return {**images_batch(step, channels=3), "training": np.array(step is not None)}


register("resnet_placeholder", _resnet_placeholder, _training_images_batch)
register("resnet_placeholder_resource", _resnet_placeholder, _training_images_batch, resource=True)


def _convolutional_autoencoder():
    """Down by strides, up by transposed convolutions."""
    x, _ = _placeholders()
    h = tf.nn.leaky_relu(_conv(x, 4, 3, "down1", stride=2))
    h = tf.nn.leaky_relu(_conv(h, 6, 3, "down2", stride=2), name="code")
    batch = tf.shape(x)[0]
    h = tf.nn.conv2d_transpose(h, weights("up1", [3, 3, 4, 6]), tf.stack([batch, 6, 6, 4]),
                               [1, 2, 2, 1])
    h = tf.nn.relu(tf.nn.bias_add(h, biases("b1", [4])))
    out = tf.nn.conv2d_transpose(h, weights("up2", [3, 3, 1, 4]), tf.stack([batch, 12, 12, 1]),
                                 [1, 2, 2, 1])
    out = tf.sigmoid(out, name="out")
    loss = tf.reduce_mean(tf.squared_difference(out, x))
    return Ends([out], loss, tf.train.AdamOptimizer(0.01).minimize(loss))


register("convolutional_autoencoder", _convolutional_autoencoder,
         lambda step: {"x": images_batch(step)["x"]})


def _mobile():
    """Depthwise convolutions, with and without strides and dilations; channels that are weighed."""
    x, y = _placeholders()
    h = tf.nn.relu6(_conv(x, 4, 3, "conv", stride=2))
    for scope, channels, stride in (("separable_1", 6, 1), ("separable_2", 8, 2)):
        with tf.variable_scope(scope):
            h = tf.nn.depthwise_conv2d(h, weights("depthwise", [3, 3, h.shape[-1], 1]),
                                       [1, stride, stride, 1], "SAME")
            h = tf.nn.relu6(_conv(tf.nn.relu6(h), channels, 1, "pointwise"))
    h = tf.nn.separable_conv2d(h, weights("depthwise", [3, 3, 8, 2]),
                               weights("pointwise", [1, 1, 16, 8]), [1, 1, 1, 1], "SAME")
    h = tf.nn.depthwise_conv2d(h, weights("dilated", [3, 3, 8, 1]), [1, 1, 1, 1], "SAME",
                               rate=[2, 2])
    squeezed = tf.reduce_mean(h, [1, 2])
    shares = dense(dense(squeezed, 3, "squeeze", tf.nn.relu), 8, "excite", tf.sigmoid)
    h = tf.reduce_mean(h * shares[:, tf.newaxis, tf.newaxis], [1, 2])
    logits = dense(h, 4, "out")
    loss = classification_loss(logits, y)
    return Ends([tf.nn.softmax(logits)], loss, tf.train.RMSPropOptimizer(0.01).minimize(loss))


register("mobile", _mobile, images_batch)
register("mobile_resource", _mobile, images_batch, resource=True)


def _quantized():
    """Weights and activations rounded to 8 bits, by ranges that are fixed, trained or averaged."""
    x, y = _placeholders()
    filters = weights("filters", [3, 3, 1, 4])
    low, high = biases("low", [4], -1.0), biases("high", [4], 1.0)
    filters = tf.quantization.fake_quant_with_min_max_vars_per_channel(filters, low, high)
    h = tf.nn.conv2d(x, filters, [1, 2, 2, 1], "SAME")
    h = tf.quantization.fake_quant_with_min_max_args(tf.nn.relu6(h), 0.0, 6.0)
    logits = dense(_flatten(h), 4, "out")
    averages = [tf.get_variable(name, [], initializer=tf.constant_initializer(value),
                                trainable=False) for name, value in (("min", -6.0), ("max", 6.0))]
    found = [tf.reduce_min(logits), tf.reduce_max(logits)]
    logits = tf.quantization.fake_quant_with_min_max_vars(logits, *averages, narrow_range=True)
    loss = classification_loss(logits, y)
    # After all that reads them.
    with tf.control_dependencies([tf.train.MomentumOptimizer(0.02, 0.9).minimize(loss)]):
        train = tf.group(*[
            moving_averages.assign_moving_average(variable, value, 0.9, zero_debias=False)
            for variable, value in zip(averages, found)])
    return Ends([logits], loss, train)


register("quantized", _quantized, images_batch)


def _unpooled():
    """What was pooled goes back to where it was the greatest."""
    x, y = _placeholders()
    h = tf.nn.relu(_conv(x, 4, 3, "encoder"))
    pooled, places = tf.nn.max_pool_with_argmax(h, [1, 2, 2, 1], [1, 2, 2, 1], "SAME",
                                                include_batch_in_index=True)
    h = tf.scatter_nd(tf.reshape(places, [-1, 1]), tf.reshape(pooled, [-1]),
                      tf.reshape(tf.size(h, out_type=tf.int64), [1]))
    h = _conv(tf.reshape(h, [-1, 12, 12, 4]), 4, 3, "decoder")
    loss = (classification_loss(dense(_flatten(pooled), 4, "out"), y) +
            tf.reduce_mean(tf.square(tf.reduce_mean(h, axis=3, keepdims=True) - x)))
    return Ends([h, places], loss, tf.train.AdamOptimizer(0.01).minimize(loss))


register("unpooled", _unpooled, images_batch)

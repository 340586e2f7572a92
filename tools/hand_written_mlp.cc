// The network written directly in Eigen: see hand_written_mlp.h.
#include "tools/hand_written_mlp.h"

#include <cmath>
#include <random>

#include "Eigen/Core"

namespace ferry {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Row = Eigen::Matrix<float, 1, Eigen::Dynamic, Eigen::RowMajor>;

struct HandWrittenMlp::Rep {
  struct Layer {
    Matrix w, dw, mw, vw, out, grad;  // grad: of the layer's output, before its activation.
    Row b, db, mb, vb;
  };
  std::vector<Layer> layers;
  int64_t batch = 0;
  float beta1_power = 1, beta2_power = 1;

  template <typename P>
  static void Adam(P& w, const P& g, P& m, P& v, float rate) {
    m.array() += (g.array() - m.array()) * 0.1f;
    v.array() += (g.array().square() - v.array()) * 0.001f;
    w.array() -= rate * m.array() / (v.array().sqrt() + 1e-8f);
  }
};

HandWrittenMlp::HandWrittenMlp(const std::vector<int64_t>& sizes, int64_t batch)
    : rep_(std::make_unique<Rep>()) {
  rep_->batch = batch;
  std::mt19937 random(1);
  for (size_t i = 0; i + 1 < sizes.size(); ++i) {
    const int64_t from = sizes[i], to = sizes[i + 1];
    Rep::Layer l;
    std::normal_distribution<float> normal(0, std::sqrt(2.0f / static_cast<float>(from)));
    l.w = Matrix::NullaryExpr(from, to, [&](Eigen::Index, Eigen::Index) { return normal(random); });
    l.dw = l.mw = l.vw = Matrix::Zero(from, to);
    l.b = l.db = l.mb = l.vb = Row::Zero(to);
    l.out = l.grad = Matrix::Zero(batch, to);
    rep_->layers.push_back(std::move(l));
  }
}

HandWrittenMlp::~HandWrittenMlp() = default;

float HandWrittenMlp::Step(const float* x, const int64_t* labels) {
  std::vector<Rep::Layer>& layers = rep_->layers;
  const Eigen::Index batch = rep_->batch;
  const Eigen::Map<const Matrix> input(x, batch, layers.front().w.rows());
  for (size_t i = 0; i < layers.size(); ++i) {
    Rep::Layer& l = layers[i];
    if (i == 0) {
      l.out.noalias() = input * l.w;
    } else {
      l.out.noalias() = layers[i - 1].out * l.w;
    }
    l.out.rowwise() += l.b;
    if (i + 1 < layers.size()) l.out = l.out.cwiseMax(0.0f);
  }
  Rep::Layer& last = layers.back();
  float loss = 0;
  const float scale = 1.0f / static_cast<float>(batch);
  for (Eigen::Index r = 0; r < batch; ++r) {
    const float top = last.out.row(r).maxCoeff();
    last.grad.row(r) = (last.out.row(r).array() - top).exp();
    const float sum = last.grad.row(r).sum();
    loss += std::log(sum) - (last.out(r, labels[r]) - top);
    last.grad.row(r) *= scale / sum;
    last.grad(r, labels[r]) -= scale;
  }
  rep_->beta1_power *= 0.9f;
  rep_->beta2_power *= 0.999f;
  const float rate = 1e-3f * std::sqrt(1 - rep_->beta2_power) / (1 - rep_->beta1_power);
  for (size_t i = layers.size(); i-- > 0;) {
    Rep::Layer& l = layers[i];
    if (i > 0) {
      Rep::Layer& below = layers[i - 1];
      l.dw.noalias() = below.out.transpose() * l.grad;
      below.grad.noalias() = l.grad * l.w.transpose();
      below.grad = (below.out.array() > 0).select(below.grad, 0.0f);
    } else {
      l.dw.noalias() = input.transpose() * l.grad;
    }
    l.db = l.grad.colwise().sum();
    Rep::Adam(l.w, l.dw, l.mw, l.vw, rate);
    Rep::Adam(l.b, l.db, l.mb, l.vb, rate);
  }
  return loss * scale;
}

}  // namespace ferry

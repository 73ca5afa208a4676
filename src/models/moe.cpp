// A mixture of experts in place of a layer's MLP: router, routed experts, shared experts.
#include "base/error.h"
#include "models/parts.h"

namespace sheaf {
namespace {

class Moe {
 public:
  Moe(Parts& parts, std::string prefix) : p_(parts), b_(parts.b), m_(*parts.c.moe), prefix_(std::move(prefix)) {}

  MoeValues write(Value x_bsk) {
    MoeValues out{.name = prefix_};
    route(x_bsk, out);
    const Results routing = b_.route(out.chosen_bsk, {}, m_.experts);
    // Before the rows move: where experts are cut over ranks the device has this to do while the host learns how many rows there are.
    const Value shared_bsk = m_.shared_intermediate ? shared(x_bsk) : Value{};
    const Value routed_bsk = experts(x_bsk, routing[0], routing[1]);
    out.out_bsk = shared_bsk ? b_.add(routed_bsk, shared_bsk).front() : routed_bsk;
    return out;
  }

 private:
  void route(Value x_bsk, MoeValues& out) {
    const Value logits_bse = logits(x_bsk);
    const bool by_logits = m_.router == Router::chosen_softmax || m_.router == Router::chosen_sigmoid;
    const Value wide_bse = p_.to_fp32(logits_bse);
    const Value scores_bse = by_logits                      ? logits_bse
                             : m_.router == Router::softmax ? Value(b_.softmax(wide_bse))
                                                            : Value(b_.sigmoid(wide_bse));
    Value bias_e;
    if (!m_.correction_bias.empty()) bias_e = out.correction_bias = correction_bias();
    out.chosen_bsk = b_.choose_experts(scores_bse, bias_e, m_.top_k, m_.groups, m_.kept_groups, m_.group_top);
    out.load_e = b_.count_experts(out.chosen_bsk, m_.experts);
    weights_bsk_ = weights(b_.take(scores_bse, out.chosen_bsk));
    if (m_.aux_coef == 0) return;
    // The loss is about the softmax of the logits, whatever the router makes of them.
    const bool same = m_.router == Router::softmax;
    out.probabilities_bse = same ? scores_bse : Value(b_.softmax(wide_bse));
    const bool chosen_alike = !bias_e && m_.router != Router::sigmoid;
    out.counted_e =
        chosen_alike ? out.load_e : Value(b_.count_experts(b_.choose_experts(out.probabilities_bse, {}, m_.top_k, 0, 0, 0), m_.experts));
  }

  Value logits(Value x_bsk) {
    const std::string name = prefix_ + m_.router_name;
    const Shape shape = {m_.experts, p_.c.hidden};
    Value w_ek =
        m_.fp32_router ? p_.parameter_fp32(name + ".weight", shape, "normal", shape) : p_.parameter(name + ".weight", shape, "normal");
    if (m_.fp32_logits) x_bsk = p_.to_fp32(x_bsk), w_ek = p_.to_fp32(w_ek);
    const Value y_bse = b_.einsum("b s k, e k -> b s e", x_bsk, w_ek);
    return m_.router_bias ? b_.add(y_bse, p_.parameter(name + ".bias", {m_.experts}, "normal")).front() : y_bse;
  }

  // Not trained: whoever balances experts without a loss writes it.
  Value correction_bias() {
    const Shape file = m_.router == Router::softmax ? Shape{1, m_.experts} : Shape{m_.experts};    // ernie has room for groups
    return p_.parameter_fp32(prefix_ + m_.correction_bias, {m_.experts}, "zeros", file, false);
  }

  Value weights(Value chosen_bsk) {
    Value w = chosen_bsk;
    if (m_.router == Router::chosen_softmax) w = b_.softmax(w);
    if (m_.router == Router::chosen_sigmoid) w = b_.sigmoid(p_.to_fp32(w));
    if (m_.normalized) w = b_.normalize(w, m_.norm_eps, m_.norm_floor);
    if (m_.weight_scale != 1) w = b_.scale(w, m_.weight_scale);
    return m_.fp32_weights ? w : p_.to_compute(w);
  }

  Value experts(Value x_bsk, Value slot, Value expert) {
    const Value w_ebs = b_.dispatch_weights(weights_bsk_, slot);
    Value x_ebsk = b_.dispatch(x_bsk, slot, m_.top_k);
    if (m_.weighs_input) x_ebsk = weighed(x_ebsk, w_ebs);
    return b_.combine(feed_forward(x_ebsk, expert, m_.weighs_input ? Value{} : w_ebs), slot, m_.top_k);
  }

  Value weighed(Value rows, Value w_ebs) { return b_.einsum("e b s k, e b s -> e b s k", rows, w_ebs); }

  // Each expert on its rows: down(act(gate) up), times w. Without a bias behind it `down` is linear, and its input is narrower.
  Value feed_forward(Value x_ebsk, Value expert, Value w_ebs) {
    const std::int64_t E = m_.experts, M = m_.intermediate, H = p_.c.hidden;
    const std::string name = prefix_ + "experts.";
    const auto product = [&](const char* rule, Value x, Value w) { return b_.grouped_einsum(x, w, expert, rule, "same").front(); };
    Value both, down;
    const char* pairs = "e b s g m -> e b s m";
    switch (m_.layout) {
      case ExpertLayout::out_in:
        both = product("e b s k, e g m k -> e b s g m", x_ebsk, weight(name + "gate_up_proj", {E, 2, M, H}, {E, 2 * M, H}, "e g m k"));
        break;
      case ExpertLayout::in_pairs:
        both = product("e b s k, e k m g -> e b s m g", x_ebsk, weight(name + "gate_up_proj", {E, H, M, 2}, {E, H, 2 * M}, "e k m g"));
        pairs = "e b s m g -> e b s m";
        break;
      case ExpertLayout::in_halves:
        both = product("e b s k, e k g m -> e b s g m", x_ebsk, weight(name + "gate_up_proj", {E, H, 2, M}, {E, H, 2 * M}, "e k g m"));
        break;
    }
    if (m_.expert_bias) {
      SHEAF_CHECK(m_.layout == ExpertLayout::in_pairs, "biases of experts: another layout than gpt_oss'");
      both = b_.add_expert_bias(both, weight(name + "gate_up_proj_bias", {E, M, 2}, {E, 2 * M}, "e m g", "zeros"), expert);
    }
    Value a_ebsm = b_.gated(both, pairs, m_.activation, m_.limit);
    if (w_ebs && !m_.expert_bias) a_ebsm = weighed(a_ebsm, w_ebs);
    if (m_.layout == ExpertLayout::out_in)
      down = product("e b s m, e k m -> e b s k", a_ebsm, weight(name + "down_proj", {E, H, M}, {E, H, M}, "e k m"));
    else
      down = product("e b s m, e m k -> e b s k", a_ebsm, weight(name + "down_proj", {E, M, H}, {E, M, H}, "e m k"));
    if (!m_.expert_bias) return down;
    down = b_.add_expert_bias(down, weight(name + "down_proj_bias", {E, H}, {E, H}, "e k", "zeros"), expert);
    return w_ebs ? weighed(down, w_ebs) : down;
  }

  // dims: which of them are the experts, e, and their inner channels, m.
  Value weight(const std::string& name, const Shape& shape, const Shape& in_file, const char* dims, const char* init = "normal") {
    const Value v = p_.parameter(name, shape, init, in_file);
    b_.graph()[b_.graph().find(name)].attrs.set("dims", Text(dims));
    return v;
  }

  Value shared(Value x_bsk) {
    const Value y_bsk = write_mlp(p_, x_bsk, prefix_ + m_.shared_name + ".", m_.shared_intermediate);
    if (!m_.shared_gate) return y_bsk;
    const Value w_k = p_.parameter(prefix_ + m_.shared_name + "_gate.weight", {p_.c.hidden}, "normal", {1, p_.c.hidden});
    return b_.einsum("b s k, b s -> b s k", y_bsk, b_.sigmoid(b_.einsum("b s k, k -> b s", x_bsk, w_k)));
  }

  Parts& p_;
  Builder& b_;
  const MoeConfig& m_;
  std::string prefix_;
  Value weights_bsk_;
};

}    // namespace

MoeValues write_moe(Parts& parts, Value x_bsk, const std::string& prefix) { return Moe(parts, prefix).write(x_bsk); }

}    // namespace sheaf

// A tiny model trained by executors on rank threads, all passes included, against the executor of one rank.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/text.h"
#include "comm/local.h"
#include "comm/rank_threads.h"
#include "models/model.h"
#include "ops/aten.h"
#include "passes/pass.h"
#include "runtime/executor.h"
#include "runtime/scratch.h"
#include "support/pieces.h"

using namespace sheaf;
using sheaf::testing::piece_of;

namespace {

constexpr std::int64_t kSteps = 6, kVocab = 19, kRows = 4, kTokens = 6;

struct MeshCase {
  const char* mesh;
  std::int64_t stage, micro_batches = 1;
  bool bf16 = false;
  std::int64_t documents = 0;
  const char* experts = "";    // the plan; "": a dense model
};
void PrintTo(const MeshCase& c, std::ostream* to) {
  *to << c.mesh << ", ZeRO " << c.stage << ", " << c.micro_batches << " micro-batches" << (c.bf16 ? ", bf16" : "")
      << (*c.experts ? ", experts " : "") << c.experts;
}

Graph step_of(const MeshCase& c, const std::string& mesh) {
  Json config = {{"model_type", "qwen3"},         {"vocab_size", kVocab},     {"hidden_size", 9},         {"intermediate_size", 10},
                 {"num_hidden_layers", 2},        {"num_attention_heads", 6}, {"num_key_value_heads", 3}, {"head_dim", 4},
                 {"max_position_embeddings", 64}, {"attention_bias", true},   {"initializer_range", 0.3}};
  Options options;
  options.mesh = mesh;
  if (*c.experts) {
    config.update({{"model_type", "qwen3_moe"},
                   {"num_experts", 5},
                   {"num_experts_per_tok", 3},
                   {"moe_intermediate_size", 7},
                   {"norm_topk_prob", true},
                   {"output_router_logits", true}});
    options.expert_plan = c.experts;
  }
  options.tp_plan =
      "layers.*.self_attn.q_proj colwise; layers.*.self_attn.k_proj colwise; layers.*.self_attn.v_proj colwise; "
      "layers.*.self_attn.o_proj rowwise; ?layers.*.mlp.gate_proj colwise; ?layers.*.mlp.up_proj colwise; ?layers.*.mlp.down_proj rowwise; "
      "embed_tokens embedding_rowwise; lm_head colwise";
  options.zero_stage = c.stage;
  options.persist = 12;
  options.gather_bucket = options.reduce_bucket = options.update_bucket = 1000;
  options.weight_decay = 0.01;
  options.num_micro_batches = c.micro_batches;
  return RunPasses{}(build_model(config, {.rows = kRows, .seq_len = kTokens, .documents = c.documents}, c.bf16 ? DType::bf16 : DType::fp32),
                     training_passes(), options);
}

// All of a value; the same on any mesh, whatever copies a graph has.
at::Tensor whole_of(const Graph& graph, Value v, std::int64_t step = 0) {
  const ValueInfo& info = graph[v];
  at::Tensor t = at::zeros(info.type.shape, info.kind == ValueKind::input ? at::kInt : at::kFloat);
  const Value source = info.attrs.has("of") && info.name.ends_with(".c") ? graph.find(info.attrs.text("of")) : v;
  const std::string init = graph[source].attrs.has("init") ? graph[source].attrs.text("init") : "";
  std::mt19937_64 rng(hash_text(graph[source].name) + static_cast<std::uint64_t>(step));
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    const auto r = static_cast<int>(rng() >> 40 & 0xffff);
    if (info.kind == ValueKind::input)
      t.data_ptr<int>()[i] = info.name == "positions"              ? static_cast<int>(i % kTokens)
                             : info.name == "document_ends"        ? 2 + static_cast<int>(i % info.type.shape.back())
                             : info.name == "labels" && r % 5 == 0 ? -100
                                                                   : r % static_cast<int>(kVocab);
    else
      t.data_ptr<float>()[i] = init == "ones" ? 1.0f : init == "normal" ? (static_cast<float>(r) / 65536 - 0.5f) : 0.0f;
  }
  return t.to(scalar_type(info.type.dtype));
}

// One rank: everything that it writes is made before the steps, so that a step allocates nothing.
struct OnRank {
  std::unique_ptr<Executor> executor;
  std::vector<std::vector<std::pair<Value, at::Tensor>>> inputs;    // by step
  std::vector<std::pair<double, double>> metrics;                   // loss, norm

  OnRank(const Graph& graph, Transport* transport) : executor(new Executor(graph, {.poison = true, .transport = transport})) {
    const Graph& g = executor->graph();
    const auto piece = [&](Value v, std::int64_t step) {
      return piece_of(whole_of(g, v, step), g.type(v).placement, g.mesh, executor->rank());
    };
    for (const Value v : g.all(ValueKind::state))
      if (!g[v].attrs.has("metric")) write(v, piece(v, 0));
    for (std::int64_t step = 0; step < kSteps; ++step) {
      inputs.emplace_back();
      for (const Value v : g.all(ValueKind::input)) inputs.back().emplace_back(v, piece(v, step));
    }
    metrics.reserve(kSteps);
  }
  void write(Value v, const at::Tensor& t) { executor->write(v, t.data_ptr(), static_cast<std::int64_t>(t.nbytes())); }
  void step() {
    const std::size_t n = metrics.size();
    for (const auto& [v, t] : inputs[n]) write(v, t);
    for (const auto& [name, value] : std::initializer_list<std::pair<const char*, double>>{
             {"lr", 1e-3},
             {"beta1", 0.9},
             {"beta2", 0.99},
             {"bias1", 1 - std::pow(0.9, n + 1.0)},
             {"bias2", 1 - std::pow(0.99, n + 1.0)},
             {kMicroBatchShare, 1.0 / static_cast<double>(executor->num_micro_batches())}})
      executor->set_argument(name, value);
    executor->run_step();
    metrics.emplace_back(executor->metric("loss"), executor->metric("grad_norm"));
  }
};

class OnMesh : public ::testing::TestWithParam<MeshCase> {};

}    // namespace

TEST_P(OnMesh, ranks_train_as_one_does_and_allocate_nothing_after_the_first_step) {
  const MeshCase c = GetParam();
  install_scratch_allocators();
  OnRank one(step_of(c, ""), nullptr);
  for (int i = 0; i < kSteps; ++i) one.step();

  const Graph graph = step_of(c, c.mesh);
  const auto size = static_cast<int>(graph.mesh.num_ranks());
  LocalWorld world(size, 60.0);
  std::vector<std::unique_ptr<OnRank>> ranks(static_cast<std::size_t>(size));
  const auto on_all = [&](auto&& work) {
    const auto outcomes = test::run_ranks(size, [&](int rank) {
      try {
        work(rank);
      } catch (const std::exception& error) {
        world.at(rank).abort(error.what());
        throw;
      }
    });
    for (const auto& outcome : outcomes) ASSERT_EQ(outcome.text, "");
  };
  on_all([&](int rank) {
    ranks[static_cast<std::size_t>(rank)] = std::make_unique<OnRank>(graph, &world.at(rank));
    ranks[static_cast<std::size_t>(rank)]->step();
  });
  if (HasFailure()) return;
  std::vector<std::int64_t> stray(ranks.size());    // counted by thread
  on_all([&](int rank) {
    const std::int64_t before = num_stray_allocations();
    while (ranks[static_cast<std::size_t>(rank)]->metrics.size() < kSteps) ranks[static_cast<std::size_t>(rank)]->step();
    stray[static_cast<std::size_t>(rank)] = num_stray_allocations() - before;
  });
  if (HasFailure()) return;
  const bool all_planned = !*c.experts;    // rows of experts lie outside of the plan
  for (const std::int64_t count : stray) EXPECT_TRUE(count == 0 || !all_planned) << count;

  // fp32: sums in another order. bf16: a partial is rounded before it is reduced, so only about. With experts a token whose choice is
  // nearly a tie goes elsewhere: one rank's norms differ by 1.4 % where a sum of two products is rounded once and not twice.
  const double tolerance = c.bf16 ? (*c.experts ? 4e-2 : 2e-2) : 1e-5;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    for (std::size_t step = 0; step < kSteps; ++step) {
      const auto [loss, norm] = ranks[rank]->metrics[step];
      const auto [wanted_loss, wanted_norm] = one.metrics[step];
      EXPECT_NEAR(loss, wanted_loss, tolerance * wanted_loss) << "rank " << rank << ", step " << step;
      EXPECT_NEAR(norm, wanted_norm, tolerance * wanted_norm) << "rank " << rank << ", step " << step;
      EXPECT_EQ(loss, ranks[0]->metrics[step].first);    // every rank the same bits
    }
    EXPECT_TRUE(ranks[rank]->executor->planned_bytes() == ranks[rank]->executor->peak_bytes() || !all_planned);
  }
  if (c.bf16) return;
  // Final weights.
  for (const Value v : one.executor->graph().all(ValueKind::state)) {
    const ValueInfo& info = one.executor->graph()[v];
    if (!info.attrs.has("trainable")) continue;
    at::Tensor whole = at::empty(info.type.shape, at::kFloat);
    one.executor->read(v, whole.data_ptr(), static_cast<std::int64_t>(whole.nbytes()));
    for (const auto& rank : ranks) {
      const Value w = rank->executor->graph().find(info.name);
      const at::Tensor wanted = piece_of(whole, graph.type(w).placement, graph.mesh, rank->executor->rank());
      at::Tensor found = at::empty(wanted.sizes(), at::kFloat);
      rank->executor->read(w, found.data_ptr(), static_cast<std::int64_t>(found.nbytes()));
      if (found.numel() == 0) continue;
      EXPECT_LT(found.sub(wanted).abs().max().item<double>(), 1e-4) << info.name;
    }
  }
}

constexpr const char* kDp = "mesh a0=4    axes dp=a0 sp=. tp=.";
constexpr const char* kTp = "mesh a0=4    axes dp=. sp=. tp=a0";
constexpr const char* kSp = "mesh a0=3    axes dp=. sp=a0 tp=.";
constexpr const char* kAll = "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0";
constexpr const char* kEp = "mesh a0=4    axes dp=a0 sp=. tp=. edp=. ep=a0 etp=.";
constexpr const char* kFolded = "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0 edp=a2 ep=a1 etp=a0";
// Rows leave a major atom of the tokens: what remains is no run of them.
constexpr const char* kStrided = "mesh a2=2 a1=2 a0=2    axes dp=a2.a1 sp=. tp=a0 edp=a1 ep=a2.a0 etp=.";
INSTANTIATE_TEST_SUITE_P(Executor, OnMesh,
                         ::testing::Values(MeshCase{kDp, 0}, MeshCase{kDp, 1, 2}, MeshCase{kDp, 2, 3}, MeshCase{kDp, 3, 2},
                                           MeshCase{kTp, 0}, MeshCase{kTp, 1, 2}, MeshCase{kSp, 0, 1, false, 2}, MeshCase{kSp, 3, 2},
                                           MeshCase{"mesh a1=2 a0=2    axes dp=a1 sp=. tp=a0", 3, 2},
                                           MeshCase{"mesh a1=2 a0=2    axes dp=. sp=a1 tp=a0", 2}, MeshCase{kAll, 3}, MeshCase{kAll, 1, 2},
                                           MeshCase{kAll, 3, 2, true}, MeshCase{kEp, 1, 2, false, 0, "exact"},
                                           MeshCase{kEp, 3, 1, false, 2, "dedup"}, MeshCase{kEp, 2, 2, false, 0, "gather"},
                                           MeshCase{kFolded, 3, 2, false, 0, "exact"}, MeshCase{kFolded, 3, 1, false, 0, "dedup"},
                                           MeshCase{kFolded, 0, 2, false, 0, "gather"}, MeshCase{kFolded, 3, 2, true, 0, "dedup"},
                                           MeshCase{kStrided, 3, 1, false, 0, "dedup"}, MeshCase{kStrided, 3, 1, false, 0, "exact"}));

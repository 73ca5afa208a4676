#include "runtime/kernels/cuda/gemm.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "runtime/kernels/cuda/cublas_lt.h"

namespace sheaf {
namespace {

constexpr int kMostGuesses = 16;

void check(lt::Status status, const char* what) { SHEAF_CHECK(status == 0, "cublasLt, {}: {}", what, lt::library().status_text(status)); }
void check(cudaError_t error) { SHEAF_CHECK(error == cudaSuccess, "measuring a product: {}", cudaGetErrorString(error)); }

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device));
  return device;
}

// What a plan depends on, and an algorithm but for the length of lines.
struct Key {
  GemmShape shape;
  std::uint32_t alignment;     // bytes on which all matrices and their lines begin; no kernel asks for more than 16
  std::array<int, 3> gpu{};    // a process has several GPUs, of one kind as a rule
  auto operator<=>(const Key&) const = default;
};
Key of_any_lines(Key key) {
  for (GemmOperand* operand : {&key.shape.a, &key.shape.b, &key.shape.d}) operand->ld = operand->stride = 0;
  return key;
}

Key key_of(const Gemm& gemm) {
  const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  std::uintptr_t bits = address(gemm.a) | address(gemm.b) | address(gemm.d) | (gemm.shape.adds ? address(gemm.c) : 0) | 16;
  const auto line = [](const GemmOperand& operand, cudaDataType type) {
    return static_cast<std::uintptr_t>(operand.ld) * (type == CUDA_R_32F ? 4 : 2);
  };
  bits |= line(gemm.shape.a, gemm.shape.in) | line(gemm.shape.b, gemm.shape.in) | line(gemm.shape.d, gemm.shape.out);
  Key key{gemm.shape, std::uint32_t{1} << std::countr_zero(bits)};
  const int device = current_device();
  constexpr cudaDeviceAttr kKind[] = {cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor, cudaDevAttrMultiProcessorCount};
  for (std::size_t i = 0; i < key.gpu.size(); ++i) check(cudaDeviceGetAttribute(&key.gpu[i], kKind[i], device));
  return key;
}

// The library knows matrices by columns. By columns, d is its transpose, which is the transpose of b times that of a: so b comes first.
struct Plan {
  lt::Operation operation = nullptr;
  lt::Layout first = nullptr, second = nullptr, d = nullptr;    // of b, a, d
  lt::Algorithm algorithm{};
};

lt::Layout layout(const GemmOperand& operand, cudaDataType type, std::int64_t rows, std::int64_t columns, std::int64_t batch) {
  const lt::Library& lt = lt::library();
  if (operand.turned) std::swap(rows, columns);
  lt::Layout layout = nullptr;
  check(lt.layout_create(&layout, type, static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows), operand.ld), "layout");
  const auto count = static_cast<std::int32_t>(batch);
  check(lt.layout_set(layout, lt::kBatchCount, &count, sizeof count), "layout");
  check(lt.layout_set(layout, lt::kBatchStride, &operand.stride, sizeof operand.stride), "layout");
  return layout;
}

Plan plan_without_algorithm(const GemmShape& s) {
  const lt::Library& lt = lt::library();
  Plan plan;
  check(lt.operation_create(&plan.operation, lt::kCompute32F, CUDA_R_32F), "operation");
  const std::int32_t first = s.b.turned, second = s.a.turned;
  check(lt.operation_set(plan.operation, lt::kTransA, &first, sizeof first), "operation");
  check(lt.operation_set(plan.operation, lt::kTransB, &second, sizeof second), "operation");
  plan.first = layout(s.b, s.in, s.k, s.n, s.batch);
  plan.second = layout(s.a, s.in, s.m, s.k, s.batch);
  plan.d = layout(s.d, s.out, s.m, s.n, s.batch);
  return plan;
}

lt::Handle handle(int device) {
  static std::mutex mutex;
  static std::map<int, lt::Handle> handles;    // as long as the process lives
  const std::lock_guard lock(mutex);
  lt::Handle& h = handles[device];
  if (!h) check(lt::library().create(&h), "handle");
  return h;
}

// In the order of the library's belief, at most `wanted`. Parts of a long sum are added in a fixed order and in fp32.
std::vector<lt::Algorithm> guesses(const Plan& plan, const Key& key, int wanted) {
  const lt::Library& lt = lt::library();
  lt::Preference preference = nullptr;
  check(lt.preference_create(&preference), "preference");
  const std::unique_ptr<std::remove_pointer_t<lt::Preference>, lt::Status (*)(lt::Preference)> owned(preference, lt.preference_destroy);
  const std::uint64_t workspace = kGemmWorkspace;
  const std::uint32_t reductions = lt::kNoReduction | lt::kReductionIn32F;
  check(lt.preference_set(preference, lt::kMaxWorkspace, &workspace, sizeof workspace), "preference");
  check(lt.preference_set(preference, lt::kReductions, &reductions, sizeof reductions), "preference");
  for (int matrix = 0; matrix < 4; ++matrix)
    check(lt.preference_set(preference, lt::kAlignmentOfA + matrix, &key.alignment, sizeof key.alignment), "preference");
  std::array<lt::Candidate, kMostGuesses> found{};
  int num_found = 0;
  check(lt.candidates(handle(current_device()), plan.operation, plan.first, plan.second, plan.d, plan.d, preference, wanted, found.data(),
                      &num_found),
        "guesses");
  std::vector<lt::Algorithm> out;
  for (int i = 0; i < num_found; ++i)
    if (found[static_cast<std::size_t>(i)].status == 0) out.push_back(found[static_cast<std::size_t>(i)].algorithm);
  SHEAF_CHECK(!out.empty(), "cublasLt has no algorithm for {} x {} x {}, lines of {}, {} and {}", key.shape.m, key.shape.n, key.shape.k,
              key.shape.a.ld, key.shape.b.ld, key.shape.d.ld);
  return out;
}

lt::Status launch(const Gemm& gemm, const Plan& plan, const lt::Algorithm& algorithm, void* workspace, CUstream_st* stream) {
  const float alpha = 1, beta = gemm.shape.adds ? 1 : 0;
  const void* const c = gemm.shape.adds ? gemm.c : gemm.d;    // not read if beta is 0
  return lt::library().multiply(handle(current_device()), plan.operation, &alpha, gemm.b, plan.first, gemm.a, plan.second, &beta, c, plan.d,
                                gemm.d, plan.d, &algorithm, workspace, kGemmWorkspace, stream);
}

// By kind of product. Entries are never removed: kinds of a process are few, and a reference stays good.
class Plans {
 public:
  const Plan* find(const Key& key) const {
    const std::lock_guard lock(mutex_);
    const auto found = plans_.find(key);
    return found == plans_.end() ? nullptr : &found->second;
  }
  const Plan& add(const Key& key, const Plan& plan) {
    const std::lock_guard lock(mutex_);
    return plans_.emplace(key, plan).first->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<Key, Plan> plans_;
};
Plans& guessed() {
  static Plans plans;
  return plans;
}
Plans& measured() {
  static Plans plans;
  return plans;
}
Plans& measured_of_any_lines() {    // plans whose algorithm was measured on some lines
  static Plans plans;
  return plans;
}

const Plan& guessed_plan(const Key& key) {
  if (const Plan* plan = guessed().find(key)) return *plan;
  Plan plan = plan_without_algorithm(key.shape);
  plan.algorithm = guesses(plan, key, 1).front();
  return guessed().add(key, plan);
}

const Plan& measured_plan(const Key& key) {
  if (const Plan* plan = measured().find(key)) return *plan;
  const Plan* const like = measured_of_any_lines().find(of_any_lines(key));
  if (!like) return guessed_plan(key);
  Plan plan = plan_without_algorithm(key.shape);
  plan.algorithm = like->algorithm;
  return measured().add(key, plan);
}

// Milliseconds of a call, of `calls` in a row.
class Stopwatch {
 public:
  explicit Stopwatch(CUstream_st* stream) : stream_(stream) { check(cudaEventCreate(&begin_)), check(cudaEventCreate(&end_)); }
  ~Stopwatch() { cudaEventDestroy(begin_), cudaEventDestroy(end_); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  template <class Call>
  float time(int calls, const Call& call) {
    check(cudaEventRecord(begin_, stream_));
    for (int i = 0; i < calls; ++i) call();
    check(cudaEventRecord(end_, stream_));
    check(cudaEventSynchronize(end_));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_));
    return ms / static_cast<float>(calls);
  }

 private:
  CUstream_st* stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

struct Timed {
  lt::Algorithm algorithm;
  float ms;
};

// Under a training step the GPU runs at its power limit, where the algorithm that needs least energy has the highest clock: what is fastest
// in a short burst on a cool GPU may be 5 % behind. So the turns are long enough for the clock to follow, which takes some 10 ms. What is
// far behind after its first turn, a short one, is out: most of the time goes to those that matter.
lt::Algorithm fastest(const Gemm& gemm, const Plan& plan, const std::vector<lt::Algorithm>& algorithms, void* workspace,
                      CUstream_st* stream) {
  constexpr int kTurns = 3, kMostCalls = 64;
  constexpr float kFirstTurnMs = 10, kTurnMs = 40, kFarBehind = 1.1F, kSame = 1.005F;
  Stopwatch watch(stream);
  std::vector<Timed> rest;
  for (const lt::Algorithm& algorithm : algorithms) {
    const auto call = [&] { return launch(gemm, plan, algorithm, workspace, stream); };
    if (call() == 0) rest.push_back({algorithm, watch.time(1, call)});    // the first call loads the kernel
  }
  SHEAF_CHECK(!rest.empty(), "cublasLt runs none of its algorithms for {} x {} x {}", gemm.shape.m, gemm.shape.n, gemm.shape.k);
  for (int turn = 0; turn < kTurns; ++turn) {
    for (Timed& timed : rest) {
      const float wanted = turn == 0 ? kFirstTurnMs : kTurnMs;
      const int calls = std::clamp(static_cast<int>(wanted / std::max(timed.ms, 1e-3F)), 1, kMostCalls);
      const float ms = watch.time(calls, [&] { launch(gemm, plan, timed.algorithm, workspace, stream); });
      timed.ms = turn < 2 ? ms : std::min(timed.ms, ms);    // the first turn is on a GPU that is not warm yet
    }
    const float best = std::min_element(rest.begin(), rest.end(), [](const Timed& x, const Timed& y) { return x.ms < y.ms; })->ms;
    // At the end all that is as good as the best: of these the library's first, so that noise seldom decides.
    std::erase_if(rest, [&](const Timed& timed) { return timed.ms > best * (turn + 1 < kTurns ? kFarBehind : kSame); });
  }
  return rest.front().algorithm;
}

void multiply(const Gemm& gemm, const Plan& plan, void* workspace, CUstream_st* stream) {
  check(launch(gemm, plan, plan.algorithm, workspace, stream), "product");
}

}    // namespace

void multiply_as_guessed(const Gemm& gemm, void* workspace, CUstream_st* stream) {
  multiply(gemm, guessed_plan(key_of(gemm)), workspace, stream);
}

void multiply_as_measured(const Gemm& gemm, void* workspace, CUstream_st* stream) {
  multiply(gemm, measured_plan(key_of(gemm)), workspace, stream);
}

void measure_gemm(const Gemm& gemm, void* workspace, CUstream_st* stream) {
  static std::mutex one_at_a_time;    // the others wait, and then find it
  const std::lock_guard lock(one_at_a_time);
  const Key key = key_of(gemm);
  if (measured_of_any_lines().find(of_any_lines(key))) return;
  Plan plan = plan_without_algorithm(key.shape);
  plan.algorithm = fastest(gemm, plan, guesses(plan, key, kMostGuesses), workspace, stream);
  measured().add(key, plan);
  measured_of_any_lines().add(of_any_lines(key), plan);
}

}    // namespace sheaf

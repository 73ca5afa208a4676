#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "runtime/graph_capture.h"

namespace sheaf {
namespace {

class CudaGraph final : public CapturedGraph {
 public:
  // Nodes keep the priorities of the streams they were recorded on: collectives come first on the device, as they do without a graph.
  explicit CudaGraph(cudaGraph_t graph) { C10_CUDA_CHECK(cudaGraphInstantiate(&exec_, graph, cudaGraphInstantiateFlagUseNodePriority)); }
  ~CudaGraph() override { cudaGraphExecDestroy(exec_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void launch() override { C10_CUDA_CHECK(cudaGraphLaunch(exec_, c10::cuda::getCurrentCUDAStream().stream())); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

}    // namespace

std::unique_ptr<CapturedGraph> capture_graph(const std::function<void()>& work) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  struct Recorded {
    cudaGraph_t graph = nullptr;
    ~Recorded() {
      if (graph) cudaGraphDestroy(graph);
    }
  } recorded;
  // Of this thread alone: other ranks and the checkpoint writer allocate and copy meanwhile.
  C10_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &recorded.graph);
    cudaGetLastError();    // the error that is thrown on says more than what it left behind
    throw;
  }
  C10_CUDA_CHECK(cudaStreamEndCapture(stream, &recorded.graph));
  return std::make_unique<CudaGraph>(recorded.graph);
}

}    // namespace sheaf

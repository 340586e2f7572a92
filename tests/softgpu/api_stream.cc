// The runtime's calls for streams, events, host functions, and graphs that are captured.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/softgpu/runtime.h"

namespace softgpu {
namespace {

using Lock = std::unique_lock<std::mutex>;

cudaError_t CreateStream(const char* function, cudaStream_t* handle, unsigned flags, int priority) {
  return Call(function, CallKind::kDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
    if (flags & ~cudaStreamNonBlocking) return cudaErrorInvalidValue;
    auto stream = std::make_unique<Stream>();
    stream->device = thread->device;
    stream->flags = flags;
    stream->priority = priority;
    stream->queue = runtime->queues.Create(thread->device, "stream");
    stream->queue->name += " " + std::to_string(stream->queue->number);
    *handle = runtime->streams.Add(std::move(stream));
    return cudaSuccess;
  });
}

cudaError_t CreateEvent(const char* function, cudaEvent_t* handle, unsigned flags) {
  return Call(function, CallKind::kDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
    if (flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) {
      return runtime->Refuse(std::string(function) + " with flags " + std::to_string(flags));
    }
    auto event = std::make_unique<Event>();
    event->device = thread->device;
    event->timing = !(flags & cudaEventDisableTiming);
    *handle = runtime->events.Add(std::move(event));
    return cudaSuccess;
  });
}

// Every node that one of `nodes` depends on, and they themselves.
std::set<int> WithAncestors(const Graph& graph, const std::set<int>& nodes) {
  std::set<int> all = nodes;
  // Nodes come after those they depend on.
  for (int i = static_cast<int>(graph.nodes.size()) - 1; i >= 0; --i) {
    if (all.count(i)) all.insert(graph.nodes[i].after.begin(), graph.nodes[i].after.end());
  }
  return all;
}

cudaError_t Instantiate(const char* function, cudaGraphExec_t* handle, cudaGraph_t graph_handle,
                        unsigned long long flags) {
  return Call(function, CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
    if (flags & ~static_cast<unsigned long long>(cudaGraphInstantiateFlagUseNodePriority)) {
      return runtime->Refuse(std::string(function) + " with flags " + std::to_string(flags));
    }
    const Graph* graph = runtime->graphs.Find(graph_handle);
    if (graph == nullptr) return cudaErrorInvalidValue;
    auto exec = std::make_unique<GraphExec>();
    exec->graph = std::make_shared<Graph>(*graph);
    *handle = runtime->graph_execs.Add(std::move(exec));
    return cudaSuccess;
  });
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return CreateStream("cudaStreamCreate", stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return CreateStream("cudaStreamCreateWithFlags", stream, flags, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return CreateStream("cudaStreamCreateWithPriority", stream, flags, priority);
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  return Call("cudaStreamGetPriority", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                const Stream* stream = runtime->FindStream(handle);
                if (stream == nullptr) return cudaErrorInvalidResourceHandle;
                *priority = stream->priority;
                return cudaSuccess;
              });
}

// What is queued still runs.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return Call("cudaStreamDestroy", CallKind::kRelease, [&](Runtime* runtime, ThreadState*, Lock*) {
    const Stream* stream = runtime->FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (handle == nullptr || handle == cudaStreamLegacy) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr) stream->capture->broken = true;
    runtime->queues.Destroy(stream->queue);
    runtime->streams.Remove(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return Call("cudaStreamSynchronize", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock* lock) {
                Stream* stream = runtime->FindStream(handle);
                if (stream == nullptr) return cudaErrorInvalidResourceHandle;
                if (stream->capture != nullptr) {
                  return runtime->BreakCapture(stream, cudaErrorStreamCaptureUnsupported);
                }
                const cudaError_t error = runtime->CheckUnsafeInCapture();
                if (error != cudaSuccess) return error;
                // The default stream's wait takes in those that it waits for.
                const OperationPtr mark = runtime->Mark(stream, {});
                return runtime->Wait(lock, stream->device, mark);
              });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return Call("cudaStreamQuery", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock* lock) {
                Stream* stream = runtime->FindStream(handle);
                if (stream == nullptr) return cudaErrorInvalidResourceHandle;
                if (stream->capture != nullptr) {
                  return runtime->BreakCapture(stream, cudaErrorStreamCaptureUnsupported);
                }
                const cudaError_t error = runtime->CheckUnsafeInCapture();
                if (error != cudaSuccess) return error;
                return runtime->Query(lock, stream->device, stream->queue->last, &stream->queries);
              });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  return Call(
      "cudaStreamWaitEvent", CallKind::kDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
        Stream* stream = runtime->FindStream(handle);
        const Event* event = runtime->FindEvent(event_handle);
        if (stream == nullptr || event == nullptr) return cudaErrorInvalidResourceHandle;
        if (flags != 0) {
          return runtime->Refuse("cudaStreamWaitEvent with flags " + std::to_string(flags));
        }
        const std::shared_ptr<Capture> capture = event->capture.lock();
        if (capture != nullptr && !capture->broken) {
          if (stream->capture == nullptr) {
            if (handle == nullptr) return cudaErrorStreamCaptureImplicit;
            stream->capture = capture;
            stream->capture_after.clear();
          } else if (stream->capture != capture) {
            return runtime->BreakCapture(stream, cudaErrorStreamCaptureMerge);
          }
          stream->capture_after.insert(event->capture_after.begin(), event->capture_after.end());
          return cudaSuccess;
        }
        if (stream->capture != nullptr) {
          // A graph can't depend on what isn't in it.
          return runtime->BreakCapture(stream, cudaErrorStreamCaptureIsolation);
        }
        thread->clock += runtime->settings.model.queue_us;
        if (event->operation != nullptr) runtime->Mark(stream, {event->operation});
        return cudaSuccess;
      });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return CreateEvent("cudaEventCreate", event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return CreateEvent("cudaEventCreateWithFlags", event, flags);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return Call("cudaEventDestroy", CallKind::kRelease, [&](Runtime* runtime, ThreadState*, Lock*) {
    if (runtime->FindEvent(handle) == nullptr) return cudaErrorInvalidResourceHandle;
    runtime->events.Remove(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event_handle, cudaStream_t handle) {
  return Call("cudaEventRecord", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock*) {
                Stream* stream = runtime->FindStream(handle);
                Event* event = runtime->FindEvent(event_handle);
                if (stream == nullptr || event == nullptr || stream->device != event->device) {
                  return cudaErrorInvalidResourceHandle;
                }
                if (stream->capture != nullptr) {
                  event->capture = stream->capture;
                  event->capture_after = stream->capture_after;
                  event->operation = nullptr;
                  return cudaSuccess;
                }
                thread->clock += runtime->settings.model.queue_us;
                event->capture.reset();
                event->queries = 0;
                event->operation = runtime->Mark(stream, {});
                return cudaSuccess;
              });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return Call("cudaEventQuery", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock* lock) {
    Event* event = runtime->FindEvent(handle);
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    cudaError_t error = runtime->CheckUnsafeInCapture();
    if (error == cudaSuccess && event->capture.lock() != nullptr) error = cudaErrorCapturedEvent;
    if (error != cudaSuccess) return error;
    return runtime->Query(lock, event->device, event->operation, &event->queries);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return Call("cudaEventSynchronize", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock* lock) {
                const Event* event = runtime->FindEvent(handle);
                if (event == nullptr) return cudaErrorInvalidResourceHandle;
                cudaError_t error = runtime->CheckUnsafeInCapture();
                if (error == cudaSuccess && event->capture.lock() != nullptr)
                  error = cudaErrorCapturedEvent;
                if (error != cudaSuccess || event->operation == nullptr) return error;
                // The event may be recorded anew or destroyed while this waits.
                const OperationPtr operation = event->operation;
                return runtime->Wait(lock, event->device, operation);
              });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin_handle,
                                 cudaEvent_t end_handle) {
  return Call(
      "cudaEventElapsedTime", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
        const Event* begin = runtime->FindEvent(begin_handle);
        const Event* end = runtime->FindEvent(end_handle);
        if (begin == nullptr || end == nullptr || !begin->timing || !end->timing ||
            begin->operation == nullptr || end->operation == nullptr) {
          return cudaErrorInvalidResourceHandle;
        }
        if (begin->operation->state != Operation::kDone ||
            end->operation->state != Operation::kDone) {
          return cudaErrorNotReady;
        }
        *milliseconds = static_cast<float>((end->operation->end - begin->operation->end) / 1000);
        return cudaSuccess;
      });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* argument) {
  return Call("cudaLaunchHostFunc", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
    Stream* stream = runtime->FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    auto work = std::make_shared<Work>();
    work->kind = "host";
    work->name = "host function";
    work->device = stream->device;
    work->engine = Engine::kHost;
    work->host = [function, argument] {
      CurrentThread().in_host_function = true;
      function(argument);
      CurrentThread().in_host_function = false;
    };
    return runtime->Queue(stream, std::move(work));
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return Call("cudaStreamBeginCapture", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock*) {
                Stream* stream = runtime->FindStream(handle);
                if (stream == nullptr) return cudaErrorInvalidResourceHandle;
                if (handle == nullptr || handle == cudaStreamLegacy) {
                  return cudaErrorStreamCaptureUnsupported;
                }
                if (stream->capture != nullptr) return cudaErrorIllegalState;
                stream->capture = std::make_shared<Capture>();
                stream->capture->id = ++runtime->captures;
                stream->capture->mode = mode;
                stream->capture->thread = thread->number;
                stream->capture->origin = stream;
                stream->capture_after.clear();
                return cudaSuccess;
              });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return Call(
      "cudaStreamEndCapture", CallKind::kDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
        *graph = nullptr;
        Stream* stream = runtime->FindStream(handle);
        if (stream == nullptr) return cudaErrorInvalidResourceHandle;
        const std::shared_ptr<Capture> capture = stream->capture;
        if (capture == nullptr) return cudaErrorIllegalState;
        if (capture->origin != stream)
          return runtime->BreakCapture(stream, cudaErrorStreamCaptureUnmatched);
        if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != thread->number) {
          return cudaErrorStreamCaptureWrongThread;
        }
        const std::set<int> joined = WithAncestors(*capture->graph, stream->capture_after);
        bool all_joined = true;
        for (const auto& [other_handle, other] : runtime->streams.objects()) {
          if (other->capture != capture) continue;
          all_joined =
              all_joined && std::includes(joined.begin(), joined.end(),
                                          other->capture_after.begin(), other->capture_after.end());
          other->capture = nullptr;
          other->capture_after.clear();
        }
        if (capture->broken) return cudaErrorStreamCaptureInvalidated;
        if (!all_joined) return cudaErrorStreamCaptureUnjoined;
        *graph = runtime->graphs.Add(std::make_unique<Graph>(*capture->graph));
        return cudaSuccess;
      });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return Call("cudaStreamIsCapturing", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                const Stream* stream = runtime->FindStream(handle);
                if (stream == nullptr) return cudaErrorInvalidResourceHandle;
                *status = cudaStreamCaptureStatusNone;
                if (stream->capture != nullptr) {
                  *status = stream->capture->broken ? cudaStreamCaptureStatusInvalidated
                                                    : cudaStreamCaptureStatusActive;
                }
                return cudaSuccess;
              });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  const cudaError_t error = cudaStreamIsCapturing(handle, status);
  if (error != cudaSuccess) return error;
  return Call(
      "cudaStreamGetCaptureInfo", CallKind::kPlain, [&](Runtime* runtime, ThreadState*, Lock*) {
        if (graph != nullptr || dependencies != nullptr || edges != nullptr || count != nullptr) {
          return runtime->Refuse("cudaStreamGetCaptureInfo of the graph or its edges");
        }
        const Stream* stream = runtime->FindStream(handle);
        if (id != nullptr && stream->capture != nullptr) *id = stream->capture->id;
        return cudaSuccess;
      });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags) {
  return Instantiate("cudaGraphInstantiate", exec, graph, flags);
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
  return Instantiate("cudaGraphInstantiateWithFlags", exec, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t handle, cudaStream_t) {
  return Call("cudaGraphUpload", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
    return runtime->graph_execs.Find(handle) != nullptr ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec_handle, cudaStream_t handle) {
  return Call(
      "cudaGraphLaunch", CallKind::kDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
        GraphExec* exec = runtime->graph_execs.Find(exec_handle);
        Stream* stream = runtime->FindStream(handle);
        if (stream == nullptr) return cudaErrorInvalidResourceHandle;
        if (exec == nullptr) {
          runtime->Tell("an instantiated graph is launched that was destroyed or never made");
          return cudaErrorInvalidValue;
        }
        if (stream->capture != nullptr) {
          return runtime->Refuse("cudaGraphLaunch into a stream that is being captured");
        }
        thread->clock += runtime->settings.model.queue_us;
        // Launches of the same graph run one after the other.
        std::vector<OperationPtr> after = runtime->ImpliedWaits(stream);
        if (exec->last != nullptr) after.push_back(exec->last);
        exec->last = runtime->queues.AddGraph(
            stream->queue, *exec->graph, std::move(after), thread->clock,
            [runtime](const Work& work) { return runtime->FaultOf(work); });
        stream->queries = 0;
        runtime->queues.Advance();
        return cudaSuccess;
      });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  return Call("cudaGraphExecDestroy", CallKind::kRelease,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                if (runtime->graph_execs.Find(handle) == nullptr) return cudaErrorInvalidValue;
                runtime->graph_execs.Remove(handle);
                return cudaSuccess;
              });
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  return Call("cudaGraphDestroy", CallKind::kRelease, [&](Runtime* runtime, ThreadState*, Lock*) {
    if (runtime->graphs.Find(handle) == nullptr) return cudaErrorInvalidValue;
    runtime->graphs.Remove(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  return Call("cudaGraphGetNodes", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
    const Graph* graph = runtime->graphs.Find(handle);
    if (graph == nullptr) return cudaErrorInvalidValue;
    if (nodes != nullptr) return runtime->Refuse("cudaGraphGetNodes of more than their number");
    *count = std::count_if(graph->nodes.begin(), graph->nodes.end(),
                           [](const Graph::Node& node) { return node.work->counts; });
    return cudaSuccess;
  });
}

}  // extern "C"
}  // namespace softgpu

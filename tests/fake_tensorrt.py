"""A TensorRT that builds and runs plans on the CPU: the real classes' calls in front, ONNX Runtime behind.

Every call of our code goes through a `Stand` for a real class, so one that does not exist fails the test. A plan here
is the shapes of its profile as a line of JSON, and the graph; to execute one is to read and write the given addresses.
"""

import ctypes
import json

import numpy as np
import onnx
import onnxruntime
import torch

from fastgen.engine.gpu import Gpu
from tests.tensorrt_bindings import Stand, strict

GPU = Gpu(name="Test GPU 80GB", compute_capability="9.0", driver="580.1", memory=8 << 30)
DTYPES = {"tensor(float)": ("FLOAT", np.float32), "tensor(int64)": ("INT64", np.int64)}


class FakeStream:
    """CudaStream on the CPU."""

    device, handle = torch.device("cpu"), 77

    def record(self, launch):
        launch()
        launch()
        return launch

    @staticmethod
    def copy(target, source):
        target.copy_(source)

    def run(self, work):
        return work()


class FakeTensorRT:
    """Looks like the module; `log` has what the builder was told, `fail` makes one call fail."""

    def __init__(self, trt, *, version=None, fail=""):
        self._trt, self.fail, self.log = trt, fail, {"flags": [], "cleared": [], "phases": []}
        self.__version__ = version or trt.__version__

    def __getattr__(self, name):
        return getattr(self._trt, name)

    def stand(self, kind, **behaviour):
        return Stand(self._trt, kind, **behaviour)

    def _new(self, kind, made, *args):
        """Construct through the real class's own signature."""
        strict(self._trt, kind, getattr(self._trt, kind).__init__.__doc__, lambda *_: None)(*args)
        return made

    def Builder(self, logger):
        made = self.stand(
            "Builder",
            create_network=lambda flags=0: self.stand("INetworkDefinition"),
            create_builder_config=self._config,
            create_optimization_profile=self._profile,
            build_serialized_network=self._build,
        )
        self._logger = logger
        return self._new("Builder", made, logger)

    def OnnxParser(self, network, logger):
        def parse_from_file(model):
            self.log["graph"] = model
            return self.fail != "parse"

        error = self.stand("ParserError", node_operator=lambda: "Det", node_name=lambda: "n1", desc=lambda: "no kernel")
        made = self.stand("OnnxParser", parse_from_file=parse_from_file, num_errors=1, get_error=lambda index: error)
        return self._new("OnnxParser", made, network, logger)

    def _profile(self):
        def set_shape(input, min, opt, max):
            self.log.setdefault("shapes", {})[input] = [min, opt, max]

        self.log["shapes"] = {}
        return self.stand("IOptimizationProfile", set_shape=set_shape)

    def _config(self):
        def create_timing_cache(serialized_timing_cache):
            if bytes(serialized_timing_cache) not in (b"", b"timings"):
                return None
            self.log["timings"] = bytes(serialized_timing_cache)
            return self.stand("ITimingCache", serialize=lambda: b"timings")

        def set_timing_cache(cache, ignore_mismatch):
            self.log["ignore_mismatch"] = ignore_mismatch
            return True

        self.log["config"] = self.stand(
            "IBuilderConfig",
            create_timing_cache=create_timing_cache,
            set_timing_cache=set_timing_cache,
            get_timing_cache=lambda: self.stand("ITimingCache", serialize=lambda: b"timings"),
            set_flag=lambda flag: self.log["flags"].append(flag),
            clear_flag=lambda flag: self.log["cleared"].append(flag),
            set_memory_pool_limit=lambda pool, pool_size: self.log.update(pool=(pool, pool_size)),
            add_optimization_profile=lambda profile: -1 if self.fail == "profile" else 0,
        )
        return self.log["config"]

    def _build(self, network, config):
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        monitor.phase_start("Tactics", "Building", 4)
        more = [monitor.step_complete("Tactics", step) for step in range(4)]
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Building")
        self.log["phases"].append(more)
        if self.fail == "build" or not all(more):
            self._logger.log(self._trt.ILogger.Severity.ERROR, "out of kernels")
            return None
        graph = onnx.load(self.log["graph"]).SerializeToString()
        return json.dumps(self.log["shapes"]).encode() + b"\n" + graph

    def Runtime(self, logger):
        def deserialize_cuda_engine(serialized_engine):
            if self.fail == "deserialize":
                logger.log(self._trt.ILogger.Severity.ERROR, "wrong magic")
                return None
            shapes, graph = serialized_engine.split(b"\n", 1)
            return self._engine(json.loads(shapes), graph)

        return self._new("Runtime", self.stand("Runtime", deserialize_cuda_engine=deserialize_cuda_engine), logger)

    def _engine(self, profile, graph):
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        mode, inputs = self._trt.TensorIOMode, {t.name: t for t in session.get_inputs()}
        tensors = {**inputs, **{t.name: t for t in session.get_outputs()}}
        return self.stand(
            "ICudaEngine",
            num_io_tensors=len(tensors),
            device_memory_size_v2=4096,
            get_tensor_name=lambda index: list(tensors)[index],
            get_tensor_mode=lambda name: mode.INPUT if name in inputs else mode.OUTPUT,
            get_tensor_dtype=lambda name: getattr(self._trt.DataType, DTYPES[tensors[name].type][0]),
            get_tensor_profile_shape=lambda name, profile_index: [tuple(s) for s in profile[name]],
            create_execution_context=lambda strategy: self._context(strategy, session, profile),
        )

    def _context(self, strategy, session, profile):
        if self.fail == "context":
            return None
        assert strategy == self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        shapes, addresses = {}, {}
        types = {t.name: DTYPES[t.type][1] for t in (*session.get_inputs(), *session.get_outputs())}

        def set_input_shape(name, shape):
            shapes[name] = tuple(shape)
            return [list(shape)] * 3 == profile[name] and self.fail != "shape"

        def set_tensor_address(name, memory):
            addresses[name] = memory
            return True

        def output_shape(name):
            (output,) = session.get_outputs()
            return (next(iter(shapes.values()))[0], *output.shape[1:])

        def execute_async_v3(stream_handle):
            assert stream_handle == 77 and addresses.keys() == types.keys()
            self.log["executions"] = self.log.get("executions", 0) + 1
            feeds = {name: _array(addresses[name], shape, types[name]) for name, shape in shapes.items()}
            (result,) = session.run(None, feeds)
            _array(addresses[session.get_outputs()[0].name], result.shape, result.dtype)[...] = result
            return self.fail != "execute"

        return self.stand(
            "IExecutionContext",
            set_device_memory=lambda memory, size: self.log.update(scratch=size),
            set_input_shape=set_input_shape,
            set_tensor_address=set_tensor_address,
            infer_shapes=list,
            get_tensor_shape=output_shape,
            execute_async_v3=execute_async_v3,
        )


def _array(address, shape, dtype):
    """The memory at an address as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype=dtype).reshape(shape)

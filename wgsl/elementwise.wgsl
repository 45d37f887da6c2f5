// Maps over one or two tensors of the same size, and the slopes of the activations.            x, z, y (size)
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { size: u32, factor: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> z: array<elem>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

const root_2_over_pi = 0.7978845608028654;

fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(-v)); }
// tanh overflows in some drivers for large arguments; beyond 10 it is 1 in f32.
fn gelu_tanh(v: f32) -> f32 { return tanh(clamp(root_2_over_pi * (v + 0.044715 * v * v * v), -10.0, 10.0)); }

@compute @workgroup_size(64)
fn mul(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
       @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = elem(f32(x[i]) * f32(z[i])); }
}

@compute @workgroup_size(64)
fn scale(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = elem(f32(x[i]) * p.factor); }
}

// silu(x) = x · sigmoid(x)
@compute @workgroup_size(64)
fn silu(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { let v = f32(x[i]); y[i] = elem(v * sigmoid(v)); }
}

// y = z · silu'(x), z being the gradient
@compute @workgroup_size(64)
fn silu_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.size) { return; }
  let v = f32(x[i]);
  let s = sigmoid(v);
  y[i] = elem(f32(z[i]) * s * (1.0 + v * (1.0 - s)));
}

// gelu(x) = x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), the tanh form
@compute @workgroup_size(64)
fn gelu(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { let v = f32(x[i]); y[i] = elem(0.5 * v * (1.0 + gelu_tanh(v))); }
}

// y = z · gelu'(x), z being the gradient
@compute @workgroup_size(64)
fn gelu_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.size) { return; }
  let v = f32(x[i]);
  let t = gelu_tanh(v);
  let slope = 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * root_2_over_pi * (1.0 + 3.0 * 0.044715 * v * v);
  y[i] = elem(f32(z[i]) * slope);
}

// swiglu(x, z) = silu(x) · z: x is the gate, z the value
@compute @workgroup_size(64)
fn swiglu(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { let v = f32(x[i]); y[i] = elem(v * sigmoid(v) * f32(z[i])); }
}

// Both gradients of swiglu in one pass: dx = dy · z · silu'(x), dz = dy · silu(x)
@group(0) @binding(3) var<storage, read> dy: array<elem>;
@group(0) @binding(4) var<storage, read_write> dx: array<elem>;
@group(0) @binding(5) var<storage, read_write> dz: array<elem>;

@compute @workgroup_size(64)
fn swiglu_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                   @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.size) { return; }
  let v = f32(x[i]);
  let s = sigmoid(v);
  let slope = f32(dy[i]);
  dx[i] = elem(slope * f32(z[i]) * s * (1.0 + v * (1.0 - s)));
  dz[i] = elem(slope * v * s);
}

// Maps over one or two tensors of the same size, and the slopes of the activations.      x, z, y (size), in parts
import package::lib::part::{part, wide};
import package::lib::map::my_parts;

struct Params { size: u32, factor: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read> z: array<part>;
@group(0) @binding(3) var<storage, read_write> y: array<part>;

const root_2_over_pi = 0.7978845608028654;

fn sigmoid(v: wide) -> wide { return 1.0 / (1.0 + exp(-v)); }
// (1 + tanh(u)) / 2 = sigmoid(2 u), in one exp; tanh itself overflows in some drivers.
fn gelu_gate(v: wide) -> wide { return sigmoid(2.0 * root_2_over_pi * (v + 0.044715 * v * v * v)); }

@compute @workgroup_size(256)
fn mul(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
       @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = part(wide(x[i]) * wide(z[i])); }
}

@compute @workgroup_size(256)
fn sub(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
       @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = part(wide(x[i]) - wide(z[i])); }
}

@compute @workgroup_size(256)
fn scale(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = part(wide(x[i]) * p.factor); }
}

// silu(x) = x · sigmoid(x)
@compute @workgroup_size(256)
fn silu(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { let v = wide(x[i]); y[i] = part(v * sigmoid(v)); }
}

// y = z · silu'(x), z being the gradient
@compute @workgroup_size(256)
fn silu_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) {
    let v = wide(x[i]);
    let s = sigmoid(v);
    y[i] = part(wide(z[i]) * s * (1.0 + v * (1.0 - s)));
  }
}

// gelu(x) = x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), the tanh form
@compute @workgroup_size(256)
fn gelu(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { let v = wide(x[i]); y[i] = part(v * gelu_gate(v)); }
}

// y = z · gelu'(x), z being the gradient
@compute @workgroup_size(256)
fn gelu_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) {
    let v = wide(x[i]);
    let s = gelu_gate(v);
    let slope = s + v * s * (1.0 - s) * (2.0 * root_2_over_pi) * (1.0 + 3.0 * 0.044715 * v * v);
    y[i] = part(wide(z[i]) * slope);
  }
}

// log1p(x) = log(1 + x)
@compute @workgroup_size(256)
fn log1p(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = part(log(1.0 + wide(x[i]))); }
}

// y = z / (1 + x), z being the gradient
@compute @workgroup_size(256)
fn log1p_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                  @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = part(wide(z[i]) / (1.0 + wide(x[i]))); }
}

// swiglu(x, z) = silu(x) · z: x is the gate, z the value
@compute @workgroup_size(256)
fn swiglu(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { let v = wide(x[i]); y[i] = part(v * sigmoid(v) * wide(z[i])); }
}

// Both gradients of swiglu in one pass: dx = dy · z · silu'(x), dz = dy · silu(x)
@group(0) @binding(3) var<storage, read> dy: array<part>;
@group(0) @binding(4) var<storage, read_write> dx: array<part>;
@group(0) @binding(5) var<storage, read_write> dz: array<part>;

@compute @workgroup_size(256)
fn swiglu_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                   @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) {
    let v = wide(x[i]);
    let s = sigmoid(v);
    let slope = wide(dy[i]);
    dx[i] = part(slope * wide(z[i]) * s * (1.0 + v * (1.0 - s)));
    dz[i] = part(slope * v * s);
  }
}

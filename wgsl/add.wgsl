// y = a + b, element by element.                                                              a, b, y (size)
// forward_quads takes sizes that are multiples of four, four elements an invocation; forward takes the rest.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { size: u32 } // in elements, or in quads
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<elem>;
@group(0) @binding(2) var<storage, read> b: array<elem>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = elem(f32(a[i]) + f32(b[i])); }
}

@group(0) @binding(1) var<storage, read> left: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> right: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read_write> total: array<vec4<elem>>;

@compute @workgroup_size(64)
fn forward_quads(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { total[i] = vec4<elem>(vec4f(left[i]) + vec4f(right[i])); }
}

// Mouse, fingers and keys on a plane of the viewer.

const WHEEL_STEP = 80; // of a wheel's notch (100 or 120), or of a finger's way on a touchpad
const HU_A_PIXEL = { centre: 3, width: 4 }; // of dragging the window

export function listen(viewer, view) {
  const { canvas } = view, touches = new Map(), place = (event) => [event.offsetX, event.offsetY];
  let dragging = null, wheeled = 0;
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, place(event));
    dragging = { tool: [viewer.tool, "pan", "window"][event.button] ?? viewer.tool, from: place(event) };
    if (dragging.tool === "cross") viewer.put(view, ...place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!touches.has(event.pointerId)) return;
    const before = [...touches.values()], [x, y] = place(event);
    touches.set(event.pointerId, [x, y]);
    if (touches.size === 2) viewer.pinch(view, before, [...touches.values()]);
    if (touches.size > 1 || !dragging) return;
    const [dx, dy] = [x - dragging.from[0], y - dragging.from[1]], { centre, width } = HU_A_PIXEL;
    dragging.from = [x, y];
    if (dragging.tool === "cross") viewer.put(view, x, y);
    if (dragging.tool === "pan") viewer.pan(view, dx, dy);
    if (dragging.tool === "window") viewer.setWindow(viewer.window[0] + dy * centre - (dx * width) / 2, viewer.window[1] + dy * centre + (dx * width) / 2);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      touches.delete(event.pointerId);
      dragging = null; // the finger that stays does nothing
    });
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) return viewer.zoom(Math.exp(-event.deltaY / 300), view, place(event));
    wheeled += event.deltaMode ? Math.sign(event.deltaY) * WHEEL_STEP : event.deltaY;
    if (Math.abs(wheeled) < WHEEL_STEP) return;
    viewer.step(view.plane.through, Math.sign(wheeled));
    wheeled = 0;
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const does = keys(viewer, view.plane)[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    does();
  });
}

function keys(viewer, { across, down, through }) {
  const along = ([axis, backwards], by) => () => viewer.step(axis, backwards ? -by : by);
  return {
    ArrowLeft: along(across, -1), ArrowRight: along(across, 1), ArrowUp: along(down, -1), ArrowDown: along(down, 1),
    PageUp: () => viewer.step(through, 1), PageDown: () => viewer.step(through, -1),
    Home: () => viewer.move(through, 0), End: () => viewer.move(through, Infinity),
    "+": () => viewer.zoom(1.25), "=": () => viewer.zoom(1.25), "-": () => viewer.zoom(0.8), 0: () => viewer.fit(),
  };
}

// A brush over a picture. The state `strokes`: points (x, y) and width, in shares of the picture's sides, so that they fit any size.
const COLOUR = "#d1495b"

export default function ({ data, parentElement, setStateValue }) {
  const find = (what) => parentElement.querySelector(what)
  const canvas = find("canvas"), image = find("img"), brush = find("input")
  if (image.src !== data.image) image.src = data.image
  image.alt = data.label
  canvas.setAttribute("aria-label", data.label)
  find(".name").textContent = data.brush
  find(".undo").textContent = data.undo
  find(".clear").textContent = data.clear
  const strokes = (canvas.strokes ??= data.strokes)
  if (canvas.width !== data.width || canvas.height !== data.height) Object.assign(canvas, { width: data.width, height: data.height })

  const show = () => {
    const context = canvas.getContext("2d")
    context.clearRect(0, 0, canvas.width, canvas.height)
    for (const { width, points } of strokes) {
      const across = width * canvas.width, places = points.map(([x, y]) => [x * canvas.width, y * canvas.height])
      Object.assign(context, { strokeStyle: COLOUR, fillStyle: COLOUR, lineWidth: across, lineCap: "round", lineJoin: "round" })
      context.beginPath()
      places.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)))
      if (places.length > 1) context.stroke()
      else { context.arc(...places[0], across / 2, 0, 7); context.fill() }
    }
  }
  const tell = () => setStateValue("strokes", [...strokes])
  const at = (event) => {
    const box = canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
  }
  let drawing = false
  canvas.onpointerdown = (event) => {
    drawing = true
    canvas.setPointerCapture(event.pointerId)
    strokes.push({ width: Number(brush.value) / canvas.width, points: [at(event)] })
    show()
  }
  canvas.onpointermove = (event) => {
    if (!drawing) return
    strokes.at(-1).points.push(at(event))
    show()
  }
  canvas.onpointerup = canvas.onpointercancel = () => { if (drawing) { drawing = false; tell() } }
  find(".undo").onclick = () => { strokes.pop(); show(); tell() }
  find(".clear").onclick = () => { strokes.length = 0; show(); tell() }
  show()
}

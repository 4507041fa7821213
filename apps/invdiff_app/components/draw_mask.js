// A brush over a picture. What is painted is missing: the state `mask` is a PNG of the picture's size, black there, white elsewhere.
export default function ({ data, parentElement, setStateValue }) {
  const find = (what) => parentElement.querySelector(what)
  const canvas = find("canvas"), image = find("img"), brush = find("input")
  if (image.src !== data.image) image.src = data.image
  image.alt = data.label
  canvas.setAttribute("aria-label", data.label)
  find(".name").textContent = data.brush
  find(".undo").textContent = data.undo
  find(".clear").textContent = data.clear
  const strokes = (canvas.strokes ??= [])
  if (canvas.width !== data.width || canvas.height !== data.height) Object.assign(canvas, { width: data.width, height: data.height })

  const paint = (context, colour) => {
    for (const { size, points } of strokes) {
      Object.assign(context, { strokeStyle: colour, fillStyle: colour, lineWidth: size, lineCap: "round", lineJoin: "round" })
      context.beginPath()
      points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)))
      if (points.length > 1) context.stroke()
      else { context.arc(...points[0], size / 2, 0, 7); context.fill() }
    }
  }
  const show = () => {
    const context = canvas.getContext("2d")
    context.clearRect(0, 0, canvas.width, canvas.height)
    paint(context, "#d1495b")
  }
  const tell = () => {
    const plain = Object.assign(document.createElement("canvas"), { width: data.width, height: data.height })
    const context = plain.getContext("2d")
    context.fillStyle = "#fff"
    context.fillRect(0, 0, plain.width, plain.height)
    paint(context, "#000")
    setStateValue("mask", strokes.length ? plain.toDataURL("image/png") : null)
  }
  const at = (event) => {
    const box = canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height]
  }
  let drawing = false
  canvas.onpointerdown = (event) => {
    drawing = true
    canvas.setPointerCapture(event.pointerId)
    strokes.push({ size: Number(brush.value), points: [at(event)] })
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

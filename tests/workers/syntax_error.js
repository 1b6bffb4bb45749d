// Is not JavaScript.
export default { fetch( {

// Text files are imported as their content.
declare module "*.html" {
  const text: string;
  export default text;
}

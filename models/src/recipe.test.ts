import { expect, test } from "vitest";
import { packagePath, shippedModels, shippedNames } from "./index.js";
import { areaUnderRoc } from "./recipe.js";

test("area under the ROC curve", () => {
  expect(areaUnderRoc([3, 4], [1, 2])).toBe(1);
  expect(areaUnderRoc([1, 2], [3, 4])).toBe(0);
  expect(areaUnderRoc([1, 1], [1, 1])).toBe(0.5);
  expect(areaUnderRoc([1, 3], [2, 2])).toBe(0.5);
});

test("every shipped model has a path, and only those", () => {
  expect(shippedModels.map(({ name }) => name)).toEqual([...shippedNames]);
  for (const { name, packageDir } of shippedModels) expect(packagePath(name)).toBe(packageDir);
  expect(() => packagePath("toString")).toThrow(expect.objectContaining({ code: "not_found" }));
});

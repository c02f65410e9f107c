/** The 80 classes of COCO in the order that detectors trained on it use (Lin et al. 2014). */
export const COCO_LABELS: readonly string[] = (
  "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,bird,cat,dog," +
  "horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite," +
  "baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich," +
  "orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard," +
  "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",");

/** The 17 points of a person in COCO. */
export const COCO_KEYPOINTS: readonly string[] = (
  "nose,left eye,right eye,left ear,right ear,left shoulder,right shoulder,left elbow,right elbow,left wrist,right wrist," +
  "left hip,right hip,left knee,right knee,left ankle,right ankle"
).split(",");

/** Ten commands of the Speech Commands set with silence and the unknown first (Warden 2018), as keyword spotters of ten outputs use them. */
export const KEYWORD_LABELS: readonly string[] = "silence,unknown,yes,no,up,down,left,right,on,off".split(
  ",",
);

/** Lists that can be asked for by name. */
export const NAMED_LABELS: Readonly<Record<string, readonly string[]>> = {
  coco: COCO_LABELS,
  "coco-keypoints": COCO_KEYPOINTS,
  keywords: KEYWORD_LABELS,
};

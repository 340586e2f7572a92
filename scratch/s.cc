#include <chrono>
#include <cstdio>
#include <cmath>
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "tools/hand_written_mlp.h"
using namespace ferry;
double Now(){return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();}
#define CK(x) do{auto s_=(x); if(!s_.ok()){printf("%s\n",s_.ToString().c_str());return 1;}}while(0)
int main(int argc,char**argv){
  Graph graph; Scope root(&graph);
  VariableHandle v = MakeVariable(root,"v",Tensor::Scalar<float>(0));
  ops::AssignAdd(root.WithOpName("inc"), v.ref, ops::Const<float>(root,1));
  Output x = ops::Placeholder(root.WithOpName("cx"), DType::kFloat, PartialShape::Scalar());
  Output one=ops::Const<float>(root,1); Output c=x;
  for(int i=0;i<1000;++i) c=ops::AddV2(root,c,one);
  ops::Identity(root.WithOpName("cy"),c);
  // mlp
  auto build=[&](std::string nm,std::vector<int64_t> sz){
    Scope s=root.NewSubScope(nm);
    Output in=ops::Placeholder(s.WithOpName("x"),DType::kFloat,{-1,sz[0]}), y=ops::Placeholder(s.WithOpName("y"),DType::kInt64,{-1}), h=in;
    for(size_t i=0;i+1<sz.size();++i){ Scope l=s.NewSubScope("l"+std::to_string(i));
      VariableOptions w; w.initializer=TruncatedNormalInitializer(0,std::sqrt(2.0/sz[i])); VariableOptions b; b.initializer=ZerosInitializer();
      auto W=GetVariable(l,"w",{sz[i],sz[i+1]},DType::kFloat,w); auto B=GetVariable(l,"b",{sz[i+1]},DType::kFloat,b);
      h=ops::BiasAdd(l,ops::MatMul(l,h,W.read),B.read); if(i+2<sz.size()) h=ops::Relu(l,h);
    }
    Output loss=ops::Identity(s.WithOpName("loss"),ops::ReduceMean(s,ops::SparseSoftmaxCrossEntropyWithLogits(s,h,y).loss));
    std::vector<VariableHandle> mine; auto tv=*TrainableVariables(graph); for(auto& t:tv) if(t.name().rfind(nm+"/",0)==0) mine.push_back(t);
    MinimizeOptions m; m.var_list=mine; m.name=nm+"_train"; AdamOptimizer(1e-3).Minimize(root,loss,m);
  };
  build("small",{64,128,64,10}); build("large",{784,1024,1024,10});
  GlobalVariablesInitializer(root);
  CK(root.status());
  Session session(&graph); CK(session.Run({},{},{"init"},nullptr));
  auto inc=session.MakeCallable({{}, {}, {"inc"}}); CK(inc.status());
  auto chain=session.MakeCallable({{"cx"},{"cy"},{}}); CK(chain.status());
  std::vector<Tensor> out; Tensor z=Tensor::Scalar<float>(0);
  for(int r=0;r<4;++r){
    double t=Now(); for(int i=0;i<200000;++i) (void)inc->Run({},nullptr); printf("inc %.1f ns\n",(Now()-t)/200000*1e9);
    t=Now(); for(int i=0;i<1000;++i) (void)chain->Run({z},&out); printf("chain %.2f ns/op\n",(Now()-t)/1e6*1e9);
  }
  auto train=[&](std::string nm,std::vector<int64_t> sz,int64_t batch,int n){
    auto step=session.MakeCallable({{nm+"/x",nm+"/y"},{nm+"/loss"},{nm+"_train"}}); if(!step.ok()){printf("%s\n",step.status().ToString().c_str());return;}
    Tensor x=*Tensor::Allocate(DType::kFloat,{batch,sz[0]}), y=*Tensor::Allocate(DType::kInt64,{batch});
    for(int64_t i=0;i<x.num_elements();++i) x.data<float>()[i]=(i*7919)%17/16.f; for(int64_t i=0;i<batch;++i) y.data<int64_t>()[i]=i%10;
    HandWrittenMlp hand(sz,batch);
    for(int r=0;r<5;++r){ double t=Now(); for(int i=0;i<n;++i){auto s=step->Run({x,y},&out); if(!s.ok()){printf("%s\n",s.ToString().c_str());return;}} double a=(Now()-t)/n;
      float l=0; t=Now(); for(int i=0;i<n;++i) l=hand.Step(x.data<float>(),y.data<int64_t>()); double b=(Now()-t)/n;
      printf("%s ours %.1f us  hand %.1f us ratio %.2f  loss %g %g\n",nm.c_str(),a*1e6,b*1e6,b/a,out[0].scalar<float>(),l); }
  };
  train("small",{64,128,64,10},32,3000);
  train("large",{784,1024,1024,10},256,10);
}

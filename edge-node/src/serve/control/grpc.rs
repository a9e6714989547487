//! Messages of these calls to and from what they mean.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};

use super::{
    super::{InferError, ModelInfo, Predictor, Refused, request::check_model},
    Control, Durations, STATISTICS_VERSION, check_load_parameters, config,
    settings::{self, LogValue},
    state,
};
use crate::proto::inference::{
    InferStatistics, LogSettingsRequest, LogSettingsResponse, ModelConfigRequest,
    ModelConfigResponse, ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
    StatisticDuration, TraceSettingRequest, TraceSettingResponse, log_settings_request,
    log_settings_response, repository_index_response::ModelIndex, trace_setting_response,
};

type Answer<T> = Result<Response<T>, Status>;

pub fn model_config(info: &ModelInfo, request: &ModelConfigRequest) -> Answer<ModelConfigResponse> {
    check_model(info, &request.name, &request.version)?;
    Ok(Response::new(ModelConfigResponse { config: Some(config::message(info)) }))
}

/// Without a name, of all models: of the one there is.
pub fn statistics(
    info: ModelInfo,
    control: &dyn Control,
    request: &ModelStatisticsRequest,
) -> Answer<ModelStatisticsResponse> {
    if !request.name.is_empty() {
        check_model(&info, &request.name, &request.version)?;
    }
    let found = control.statistics();
    let of = |Durations { count, ns }| Some(StatisticDuration { count, ns });
    let stats = found.inference_stats;
    let model = ModelStatistics {
        name: info.name,
        version: STATISTICS_VERSION.into(),
        last_inference: found.last_inference,
        inference_count: found.inference_count,
        execution_count: found.execution_count,
        inference_stats: Some(InferStatistics {
            success: of(stats.success),
            fail: of(stats.fail),
            queue: of(stats.queue),
            compute_input: of(stats.compute_input),
            compute_infer: of(stats.compute_infer),
            compute_output: of(stats.compute_output),
        }),
    };
    Ok(Response::new(ModelStatisticsResponse { model_stats: vec![model] }))
}

pub fn index<P: Predictor>(
    predictor: &P,
    request: &RepositoryIndexRequest,
) -> Answer<RepositoryIndexResponse> {
    let (info, ready) = (predictor.model(), predictor.ready());
    let (state, reason) = state(ready);
    let (state, reason) = (state.into(), reason.into());
    let model = ModelIndex { name: info.name, version: info.version, state, reason };
    let models = if ready || !request.ready { vec![model] } else { Vec::new() };
    Ok(Response::new(RepositoryIndexResponse { models }))
}

pub async fn load(
    info: &ModelInfo,
    control: &dyn Control,
    request: Request<RepositoryModelLoadRequest>,
) -> Answer<RepositoryModelLoadResponse> {
    may_change(control, &request)?;
    let asked = request.into_inner();
    check_model(info, &asked.model_name, "")?;
    check_load_parameters(asked.parameters.keys().map(String::as_str))?;
    control.load().await?;
    Ok(Response::new(RepositoryModelLoadResponse {}))
}

pub fn unload(
    info: &ModelInfo,
    control: &dyn Control,
    request: Request<RepositoryModelUnloadRequest>,
) -> Answer<RepositoryModelUnloadResponse> {
    may_change(control, &request)?;
    check_model(info, &request.into_inner().model_name, "")?;
    control.unload();
    Ok(Response::new(RepositoryModelUnloadResponse {}))
}

pub fn trace_setting(
    info: &ModelInfo,
    control: &dyn Control,
    request: Request<TraceSettingRequest>,
) -> Answer<TraceSettingResponse> {
    if !request.get_ref().settings.is_empty() {
        may_change(control, &request)?;
    }
    let TraceSettingRequest { settings, model_name } = request.into_inner();
    if !model_name.is_empty() {
        check_model(info, &model_name, "")?;
    }
    let changes = settings.into_iter().map(|(name, setting)| (name, setting.value));
    settings::set_trace(&changes.collect())?;
    let shown = settings::trace_settings()
        .into_iter()
        .map(|(name, value)| (name.to_string(), trace_setting_response::SettingValue { value }));
    Ok(Response::new(TraceSettingResponse { settings: shown.collect() }))
}

pub fn log_settings(
    control: &dyn Control,
    request: Request<LogSettingsRequest>,
) -> Answer<LogSettingsResponse> {
    if !request.get_ref().settings.is_empty() {
        may_change(control, &request)?;
    }
    let mut changes = BTreeMap::new();
    for (name, setting) in request.into_inner().settings {
        use log_settings_request::setting_value::ParameterChoice;
        let value = match setting.parameter_choice {
            Some(ParameterChoice::BoolParam(flag)) => LogValue::Flag(flag),
            Some(ParameterChoice::Uint32Param(number)) => LogValue::Number(number),
            Some(ParameterChoice::StringParam(text)) => LogValue::Text(text),
            None => return Err(InferError::BadInput(format!("{name}: has no value")).into()),
        };
        changes.insert(name, value);
    }
    settings::set_log(&changes)?;
    let shown = settings::log_settings().into_iter();
    let settings = shown.map(|(name, value)| (name.to_string(), log_value(value))).collect();
    Ok(Response::new(LogSettingsResponse { settings }))
}

fn log_value(value: LogValue) -> log_settings_response::SettingValue {
    use log_settings_response::setting_value::ParameterChoice;
    let choice = match value {
        LogValue::Flag(flag) => ParameterChoice::BoolParam(flag),
        LogValue::Number(number) => ParameterChoice::Uint32Param(number),
        LogValue::Text(text) => ParameterChoice::StringParam(text),
    };
    log_settings_response::SettingValue { parameter_choice: Some(choice) }
}

fn may_change<T>(control: &dyn Control, request: &Request<T>) -> Result<(), Status> {
    let headers = request.metadata().clone().into_headers();
    control.may_change(&headers).map_err(|refused: Refused| refused.into())
}
